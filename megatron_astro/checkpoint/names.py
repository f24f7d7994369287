"""Which tensor is which: the mapping between Hugging Face and Megatron names, as data.

Megatron names are those of a megatron-core distributed checkpoint, where the layers are stacked on a first axis and each norm
carries the name of the linear it precedes. `{i}` is the layer. Sizes: vocabulary, hidden, ffn, query (all query heads), key (all
key/value heads).
"""

from dataclasses import dataclass
from math import prod

from megatron_astro.checkpoint.layouts import COPY, GATE_UP, QKV, VOCAB, Layout
from megatron_astro.model.sizes import LlamaSizes


@dataclass(frozen=True)
class Rule:
    """One Megatron tensor, the Hugging Face tensors it is made of (name, shape), and how."""

    megatron: str
    hugging_face: tuple[tuple[str, tuple[str, ...]], ...]
    layout: Layout

    @property
    def stacked(self) -> bool:
        """Whether the Megatron tensor holds all layers, one behind the other."""
        return "{i}" in self.hugging_face[0][0]


M, H = "decoder.layers.", "model.layers.{i}."
RULES = (
    Rule("embedding.word_embeddings.weight", (("model.embed_tokens.weight", ("vocabulary", "hidden")),), VOCAB),
    Rule(M + "self_attention.linear_qkv.layer_norm_weight", ((H + "input_layernorm.weight", ("hidden",)),), COPY),
    Rule(
        M + "self_attention.linear_qkv.weight",
        (
            (H + "self_attn.q_proj.weight", ("query", "hidden")),
            (H + "self_attn.k_proj.weight", ("key", "hidden")),
            (H + "self_attn.v_proj.weight", ("key", "hidden")),
        ),
        QKV,
    ),
    Rule(M + "self_attention.linear_proj.weight", ((H + "self_attn.o_proj.weight", ("hidden", "query")),), COPY),
    Rule(M + "mlp.linear_fc1.layer_norm_weight", ((H + "post_attention_layernorm.weight", ("hidden",)),), COPY),
    Rule(
        M + "mlp.linear_fc1.weight",
        ((H + "mlp.gate_proj.weight", ("ffn", "hidden")), (H + "mlp.up_proj.weight", ("ffn", "hidden"))),
        GATE_UP,
    ),
    Rule(M + "mlp.linear_fc2.weight", ((H + "mlp.down_proj.weight", ("hidden", "ffn")),), COPY),
    Rule("decoder.final_layernorm.weight", (("model.norm.weight", ("hidden",)),), COPY),
    Rule("output_layer.weight", (("lm_head.weight", ("vocabulary", "hidden")),), VOCAB),
)

EMBEDDING, OUTPUT = RULES[0], RULES[-1]

# Linears for which megatron-core keeps an (empty) extra state beside the weight of each layer, and wants it back at load.
EXTRA_STATE = tuple(
    M + linear + "._extra_state"
    for linear in ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
)

# Constants that old Hugging Face folders store beside the weights, although the configuration decides them.
DERIVED_SUFFIX = "rotary_emb.inv_freq"


@dataclass(frozen=True)
class Group:
    """The tensors of one rule in one layer (None: outside the layers): what a conversion reads and writes at a time."""

    rule: Rule
    layer: int | None
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def megatron_shape(self) -> tuple[int, ...]:
        """Shape of the Megatron tensor without the layer axis; every layout joins rows."""
        return (sum(shape[0] for shape in self.shapes), *self.shapes[0][1:])

    @property
    def num_parameters(self) -> int:
        """Numbers in the group."""
        return prod(self.megatron_shape)


def tensor_groups(sizes: LlamaSizes) -> tuple[Group, ...]:
    """Every group of a model, in the order of the computation; tied embeddings have no output group."""
    rules = RULES[:-1] if sizes.tied_embeddings else RULES
    before, after = (
        [rule for rule in rules if rule == EMBEDDING],
        [rule for rule in rules if not rule.stacked and rule != EMBEDDING],
    )
    layers = [(rule, layer) for layer in range(sizes.num_layers) for rule in rules if rule.stacked]
    in_order = [*((rule, None) for rule in before), *layers, *((rule, None) for rule in after)]
    return tuple(_group(rule, layer, sizes) for rule, layer in in_order)


def named_shapes(sizes: LlamaSizes) -> dict[str, tuple[int, ...]]:
    """Every Hugging Face tensor of a model and its shape, in the order of the computation."""
    return {name: shape for group in tensor_groups(sizes) for name, shape in zip(group.names, group.shapes, strict=True)}


def _group(rule: Rule, layer: int | None, sizes: LlamaSizes) -> Group:
    lengths = {
        "vocabulary": sizes.vocabulary_size,
        "hidden": sizes.hidden_size,
        "ffn": sizes.ffn_size,
        "query": sizes.num_heads * sizes.head_size,
        "key": sizes.num_kv_heads * sizes.head_size,
    }
    names = tuple(name.format(i=layer) for name, _ in rule.hugging_face)
    shapes = tuple(tuple(lengths[axis] for axis in axes) for _, axes in rule.hugging_face)
    return Group(rule, layer, names, shapes)
