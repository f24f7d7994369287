"""The modules megatron.core's local spec lacks, and the spec that plugs them in.

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

from megatron_astro.model.operations import ModelOperations
from megatron_astro.ops.rms_norm import rms_norm_reference

Rope = Callable[..., tuple[Tensor, Tensor]]


class RmsNorm(nn.Module):
    """Root-mean-square norm whose weight's gradient megatron.core sums over sequence-parallel ranks. [s/t, b, h] -> [s/t, b, h].

    Zhang and Sennrich 2019, eq. 4.
    """

    def __init__(
        self,
        config: TransformerConfig,
        hidden_size: int,
        eps: float = 1e-5,
        rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm_reference,
    ) -> None:
        super().__init__()
        self.epsilon = eps
        self.rms_norm = rms_norm
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=torch.cuda.current_device()))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise over h in float32; the result has the input's dtype."""
        return self.rms_norm(hidden, self.weight, self.epsilon)


class CausalAttention(nn.Module):
    """Grouped-query causal attention on PyTorch's `scaled_dot_product_attention`; no s x s mask is ever made.

    Documents packed into one row do not see each other: each is a call of its own, so the work is a sum over their squared lengths.
    """

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
        rope: Rope | None = None,
    ) -> None:
        del layer_number, attn_mask_type, attention_type, attention_dropout, cp_comm_type, pg_collection
        super().__init__()
        self.softmax_scale = softmax_scale
        self.rope = rope  # None: megatron.core has turned query and key already
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
        """Query [s, b, n, d], key and value [s, b, g, d] -> [s, b, n d]; position i attends to positions 0..i.

        Packed documents come as [t, n, d] and [t, g, d] and go as [t, n d]; t tokens of all of them.
        """
        del attention_mask, attn_mask_type, attention_bias
        if packed_seq_params is None:
            return self._causal(*self._turned(query, key, None), value)
        bounds = packed_seq_params.cu_seqlens_q
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
        query, key = self._turned(query, key, bounds)
        lengths = bounds.diff().tolist()
        documents = zip(*(torch.split(tensor, lengths) for tensor in (query, key, value)), strict=True)
        return torch.cat([self._causal(*document) for document in documents]).squeeze(1)

    def _turned(self, query: Tensor, key: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        """[s, b, n, d], [s, b, g, d] -> the same, turned by their positions unless megatron.core has done so."""
        return (query, key) if self.rope is None else self.rope(query, key, cu_seqlens=cu_seqlens)

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[s, b, n, d], [s, b, g, d], [s, b, g, d] -> [s, b, n d]."""
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))  # [b, n or g, s, d]
        context = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.softmax_scale, enable_gqa=self.grouped
        )
        return context.permute(2, 0, 1, 3).flatten(2)


def packed_documents(cu_seqlens: Tensor, longest: int) -> PackedSeqParams:
    """How a row of documents reaches megatron.core's attention: where each starts, and the end, [documents + 1] int32.

    `longest` must be the longest document and no more: megatron.core takes a table of rotary angles as long as the row for one whose
    positions do not start again.
    """
    return PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=cu_seqlens, cu_seqlens_kv=cu_seqlens, max_seqlen_q=longest, max_seqlen_kv=longest
    )


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


def llama_block(num_layers: int, operations: ModelOperations, rope: Rope | None) -> TransformerBlockSubmodules:
    """Some layers, and the norm that follows the last layer of the model; `rope` where attention turns query and key."""
    layer = llama_layer(operations, rope)
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=_norm(operations))


def llama_layer(operations: ModelOperations, rope: Rope | None) -> ModuleSpec:
    """What one LLaMA layer is made of."""
    attention = ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=ModuleSpec(module=CausalAttention, params={"rope": rope}),
            linear_proj=RowParallelLinear,
            q_layernorm=IdentityOp,
            k_layernorm=IdentityOp,
        ),
    )
    mlp = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear, activation_func=operations.swiglu)
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=_norm(operations),
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=_norm(operations),
            mlp=ModuleSpec(module=MLP, submodules=mlp),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=SHARDED_NORM_NAMES,
        ),
    )


def _norm(operations: ModelOperations) -> ModuleSpec:
    return ModuleSpec(module=RmsNorm, params={"rms_norm": operations.rms_norm})


# Checkpoints carry the norms under the names TransformerEngine's fused layers give them, as stock megatron.core's do.
SHARDED_NORM_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}
