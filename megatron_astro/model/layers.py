"""The two modules megatron.core's local spec lacks, and the spec that plugs them in.

Shapes: s sequence, b micro-batch, h hidden, t tensor-parallel ranks; n query heads and g key/value heads on this rank, d head size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """Root-mean-square norm whose weight's gradient megatron.core sums over sequence-parallel ranks. [s/t, b, h] -> [s/t, b, h].

    Zhang and Sennrich 2019, eq. 4.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=torch.cuda.current_device()))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise over h in float32; the result has the input's dtype."""
        return F.rms_norm(hidden.float(), self.weight.shape, None, self.epsilon).to(hidden.dtype) * self.weight


class CausalAttention(nn.Module):
    """Grouped-query causal attention on PyTorch's `scaled_dot_product_attention`; no s x s mask is ever made."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        del layer_number, attn_mask_type, attention_type, attention_dropout, cp_comm_type, pg_collection
        super().__init__()
        self.softmax_scale = softmax_scale
        self.grouped = config.num_query_groups != config.num_attention_heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Query [s, b, n, d], key and value [s, b, g, d] -> [s, b, n d]; position i attends to positions 0..i."""
        del attention_mask, attn_mask_type, attention_bias, packed_seq_params
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))  # [b, n or g, s, d]
        context = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.softmax_scale, enable_gqa=self.grouped
        )
        return context.permute(2, 0, 1, 3).flatten(2)


def hide_padding(num_tokens: int) -> Callable[[nn.Module, object, tuple[Tensor, Tensor | None]], tuple[Tensor, Tensor | None]]:
    """A forward hook for the output layer: logits after this rank's first `num_tokens` become -inf. [s, b, v/t] -> [s, b, v/t].

    They belong to rows that only pad the vocabulary. No probability and no gradient reaches them, so that a padded model computes, and
    learns, what the unpadded one does.
    """

    def hide(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        del module, inputs
        logits, bias = output
        return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= num_tokens, float("-inf")), bias

    return hide


def llama_block(num_layers: int) -> TransformerBlockSubmodules:
    """One pipeline stage's layers, and the norm that follows the last layer of the model."""
    return TransformerBlockSubmodules(layer_specs=[llama_layer()] * num_layers, layer_norm=RmsNorm)


def llama_layer() -> ModuleSpec:
    """What one LLaMA layer is made of."""
    attention = ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=CausalAttention,
            linear_proj=RowParallelLinear,
            q_layernorm=IdentityOp,
            k_layernorm=IdentityOp,
        ),
    )
    mlp = ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear))
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RmsNorm,
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RmsNorm,
            mlp=mlp,
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=SHARDED_NORM_NAMES,
        ),
    )


# Checkpoints carry the norms under the names TransformerEngine's fused layers give them, as stock megatron.core's do.
SHARDED_NORM_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}
