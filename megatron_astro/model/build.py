"""From sizes and a layout to this rank's part of the model; the only place that makes a megatron.core TransformerConfig."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_astro.errors import ParallelError
from megatron_astro.model import cpu_support
from megatron_astro.model.layers import hide_padding, llama_block
from megatron_astro.model.llama import LlamaModel
from megatron_astro.model.operations import REFERENCE, ModelOperations
from megatron_astro.model.rope import inverse_frequencies
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.ops.rope import rope_fused
from megatron_astro.parallel.plan import ParallelPlan, padded_vocabulary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_stage(
    sizes: LlamaSizes,
    plan: ParallelPlan,
    *,
    dtype: str = "float32",
    recompute: Literal["none", "full"] = "none",
    operations: ModelOperations = REFERENCE,
) -> GPTModel:
    """This rank's pipeline stage and tensor-parallel slice where a stage is one chunk; as of `build_chunks`."""
    (stage,) = build_chunks(sizes, plan, dtype=dtype, recompute=recompute, operations=operations)
    return stage


def build_chunks(
    sizes: LlamaSizes,
    plan: ParallelPlan,
    *,
    dtype: str = "float32",
    recompute: Literal["none", "full"] = "none",
    operations: ModelOperations = REFERENCE,
) -> list[GPTModel]:
    """This rank's `plan.vpp` chunks of layers, tensor-parallel slices of them, with uninitialised weights: load a checkpoint into them.

    The process groups of `plan` must be joined (`parallel.launch.model_parallel_groups`).
    """
    cpu_support.install()
    model_parallel_cuda_manual_seed(1)  # its tracker must exist, but a LLaMA without dropout draws nothing from it
    config = transformer_config(sizes, plan, dtype=dtype, recompute=recompute)
    return [_build_chunk(sizes, plan, config, operations, chunk) for chunk in range(plan.vpp)]


def _build_chunk(
    sizes: LlamaSizes, plan: ParallelPlan, config: TransformerConfig, operations: ModelOperations, chunk: int
) -> GPTModel:
    stage = parallel_state.get_pipeline_model_parallel_rank()
    rows = padded_vocabulary(sizes.vocabulary_size, plan.tp)
    if operations.fused_linear_cross_entropy and rows > sizes.vocabulary_size:
        raise ParallelError(
            f"ops.linear_cross_entropy = fused cannot leave out the {rows - sizes.vocabulary_size} rows that pad the vocabulary of "
            f"{sizes.vocabulary_size} for parallel.tp = {plan.tp}; choose a tp that divides the vocabulary, or reference"
        )
    frequencies = inverse_frequencies(sizes).to(torch.cuda.current_device())
    rope = partial(rope_fused, inverse_frequencies=frequencies) if operations.fused_rope else None
    model = LlamaModel(
        operations,
        config=config,
        transformer_layer_spec=llama_block(plan.layers_per_stage[stage] // plan.vpp, operations, rope),
        vocab_size=rows,
        max_sequence_length=sizes.max_positions,
        pre_process=stage == 0 and chunk == 0,
        post_process=stage == plan.pp - 1 and chunk == plan.vpp - 1,
        share_embeddings_and_output_weights=sizes.tied_embeddings,
        position_embedding_type="none" if rope else "rope",  # none: our attention turns query and key itself
        rotary_base=sizes.rope_theta,
        vp_stage=chunk if plan.vpp > 1 else None,
    )
    if not rope:
        model.rotary_pos_emb.inv_freq = frequencies
    _mark_sharded_weights(model)
    if model.post_process and rows > sizes.vocabulary_size:
        rows_before = parallel_state.get_tensor_model_parallel_rank() * rows // plan.tp
        model.output_layer.register_forward_hook(hide_padding(sizes.vocabulary_size - rows_before))
    return model.to(torch.cuda.current_device())


def _mark_sharded_weights(model: GPTModel) -> None:
    """Say which weights are slices: the gradient norm counts those on every tp rank and the others once.

    megatron.core does so itself only while it initialises weights, which we skip because a checkpoint follows.
    """
    dimension = {ColumnParallelLinear: 0, RowParallelLinear: 1, VocabParallelEmbedding: 0}
    for module in model.modules():
        weight = getattr(module, "weight", None) if type(module) in dimension else None
        if weight is not None:  # None: an output layer that shares the embedding's weight
            set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=dimension[type(module)], stride=1)


def transformer_config(
    sizes: LlamaSizes, plan: ParallelPlan, *, dtype: str, recompute: Literal["none", "full"]
) -> TransformerConfig:
    """Name every field a LLaMA needs; what is not named keeps megatron.core's default."""
    return TransformerConfig(
        # the model
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        ffn_hidden_size=sizes.ffn_size,
        num_attention_heads=sizes.num_heads,
        num_query_groups=sizes.num_kv_heads,
        kv_channels=sizes.head_size,
        normalization="RMSNorm",
        layernorm_epsilon=sizes.norm_epsilon,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        # the layout
        tensor_model_parallel_size=plan.tp,
        pipeline_model_parallel_size=plan.pp,
        virtual_pipeline_model_parallel_size=plan.vpp if plan.vpp > 1 else None,
        # Sent in batches, the activations and gradients between the same two ranks (pp = 2) would be taken for each other.
        overlap_p2p_comm=plan.vpp > 1,
        batch_p2p_comm=plan.vpp == 1,
        sequence_parallel=plan.sequence_parallel,
        num_layers_in_first_pipeline_stage=plan.layers_per_stage[0] if len(set(plan.layers_per_stage)) > 1 else None,
        # the numbers
        params_dtype=DTYPES[dtype],
        pipeline_dtype=DTYPES[dtype],
        bf16=dtype == "bfloat16",
        perform_initialization=False,
        use_cpu_initialization=False,
        calculate_per_token_loss=True,
        use_te_activation_func=True,  # not TransformerEngine's: the activation of the layer spec, whosever it is
        # kernels: chosen by our layer spec, so megatron.core's own stay out
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        # memory
        recompute_granularity="full" if recompute == "full" else None,
        recompute_method="uniform" if recompute == "full" else None,
        recompute_num_layers=1 if recompute == "full" else None,
    )
