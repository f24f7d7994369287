"""The shape of a LLaMA, read from a Hugging Face `config.json`; what our model cannot express is refused by name."""

import math
import sys
from dataclasses import dataclass
from typing import Any

from megatron_astro.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Stretching of rotary frequencies as Llama 3.1 does it (its reference implementation, `apply_scaling`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def __post_init__(self) -> None:
        if not (1 <= self.factor < math.inf and 0 < self.low_freq_factor < self.high_freq_factor < math.inf):
            raise ConfigError(
                f"config.json: rope_type 'llama3' has factor {self.factor}, low_freq_factor {self.low_freq_factor} and high_freq_factor "
                f"{self.high_freq_factor}; factor must be 1 or more, and low below high, all finite"
            )
        if self.original_max_positions < 1:
            raise ConfigError(
                f"config.json: original_max_position_embeddings is {self.original_max_positions}; a LLaMA needs a positive number there"
            )


@dataclass(frozen=True, kw_only=True)
class LlamaSizes:
    """Every number that decides a LLaMA's parameters and arithmetic."""

    num_layers: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocabulary_size: int
    max_positions: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool

    @classmethod
    def from_hf_config(cls, config: dict[str, Any]) -> "LlamaSizes":
        """Read a LLaMA `config.json` (transformers 4 or 5 style); ConfigError names a missing key or a feature we cannot express."""
        _refuse_unknown_features(config)
        heads = _number(config, "num_attention_heads")
        kv_heads = heads if config.get("num_key_value_heads") is None else _number(config, "num_key_value_heads")
        hidden = _number(config, "hidden_size")
        theta, scaling = _read_rope(config)
        return cls(
            num_layers=_number(config, "num_hidden_layers"),
            hidden_size=hidden,
            ffn_size=_number(config, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=_head_size(config, hidden, heads, kv_heads),
            vocabulary_size=_number(config, "vocab_size"),
            max_positions=_number(config, "max_position_embeddings", default=2048),
            norm_epsilon=_above_zero(config, "rms_norm_eps", default=1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_embeddings=_yes_or_no(config, "tie_word_embeddings"),
        )

    @property
    def num_parameters(self) -> int:
        """Trainable numbers in the whole model; tied embeddings count once."""
        attention = self.hidden_size * self.head_size * 2 * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.ffn_size + 2 * self.hidden_size
        embeddings = self.vocabulary_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


def _number(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ConfigError(f"config.json: {key} is {value!r}; a LLaMA needs a positive whole number there")
    return value


def _above_zero(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < sys.float_info.max:
        raise ConfigError(f"config.json: {key} is {value!r}; a LLaMA needs a number above zero there")
    return float(value)


def _yes_or_no(config: dict[str, Any], key: str) -> bool:
    value = config.get(key)
    if not isinstance(value, bool | None):
        raise ConfigError(f"config.json: {key} is {value!r}; a LLaMA needs true or false there")
    return bool(value)


# What other models of this shape do and ours does not, by the keys that ask for it; each with the values that mean "not". Keys that are
# absent or null mean that too.
FEATURES: dict[str, tuple[object, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "hidden_act": ("silu",),
    "quantization_config": ({},),
    "auto_map": ({},),  # the folder's own program computes the model
    # attention
    "sliding_window": (0,),
    "attention_chunk_size": (0,),
    "attn_logit_softcapping": (0,),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "clip_qkv": (),
    "qk_norm": (False,),
    "use_qk_norm": (False,),
    # positions
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "no_rope_layers": ([],),
    "no_rope_layer_interval": (0,),
    # scales
    "final_logit_softcapping": (0,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "scale_emb": (1,),
    "scale_depth": (),
    # experts
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
}


def _refuse_unknown_features(config: dict[str, Any]) -> None:
    if config.get("model_type") != "llama":
        raise ConfigError(f"config.json: model_type is {config.get('model_type')!r}; only 'llama' models are supported")
    for key, neutral in FEATURES.items():
        asked_for = config.get(key) not in (None, *neutral)
        if asked_for and not (key == "sliding_window" and config.get("use_sliding_window") is False):
            raise ConfigError(
                f"config.json: {key} is {config[key]!r}; it is not supported, and dropping it would change the model. "
                f"Supported: {' or '.join(map(repr, (*neutral, 'no such key')))}"
            )
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list):
        raise ConfigError(f"config.json: layer_types is {kinds!r}; a LLaMA needs a list there, or null")
    if others := [kind for kind in kinds if kind != "full_attention"]:
        raise ConfigError(f"config.json: layer_types names {others[0]}; only 'full_attention' is supported")


def _head_size(config: dict[str, Any], hidden: int, heads: int, kv_heads: int) -> int:
    """The size of a head; ConfigError unless heads can be shared out and their halves rotated."""
    if heads % kv_heads:
        raise ConfigError(f"config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if config.get("head_dim") is None and hidden % heads:
        raise ConfigError(
            f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
        )
    size = _number(config, "head_dim") if config.get("head_dim") is not None else hidden // heads
    if size % 2:
        raise ConfigError(f"config.json: a head of {size} numbers has no two halves for RoPE to rotate; head_dim must be even")
    return size


def _refuse_two_ropes(rope: dict[str, Any], older: object, older_theta: object) -> None:
    """ConfigError where the newer and the older settings, or the two words for their kind, say different things."""
    if not isinstance(older, dict):
        raise ConfigError(f"config.json: rope_scaling is {older!r}; a LLaMA needs a table there, or null")
    kinds = {str(table[key]) for table in (rope, older) for key in ("rope_type", "type") if key in table}
    differing = older is not rope and any(older[key] != rope[key] for key in older if key in rope)
    if len(kinds) > 1 or differing:
        raise ConfigError(
            f"config.json: rope_parameters, rope_scaling and their types contradict each other ({rope} and {older}); keep one of them"
        )
    if older_theta is not None and rope.get("rope_theta", older_theta) != older_theta:
        raise ConfigError(
            f"config.json: rope_theta is {older_theta!r}, and {rope['rope_theta']!r} in rope_parameters; keep one of them"
        )


def _read_rope(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Theta and scaling from transformers 5's `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ConfigError(f"config.json: the rope settings are {rope!r}; a LLaMA needs a table there, or null")
    _refuse_two_ropes(rope, config.get("rope_scaling") or {}, config.get("rope_theta"))
    if (factor := rope.get("partial_rotary_factor")) not in (None, 1):
        raise ConfigError(f"config.json: partial_rotary_factor is {factor!r}; rotating only part of a head is not supported")
    theta = _above_zero(rope if "rope_theta" in rope else config, "rope_theta", default=10000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        if rope.get("factor") not in (None, 1):
            raise ConfigError(
                f"config.json: the rope settings have a factor of {rope['factor']!r}, but their type is 'default'; correct it"
            )
        return theta, None
    if kind != "llama3":
        raise ConfigError(f"config.json: rope_type is {kind!r}; supported are 'default' and 'llama3'")
    try:
        return theta, RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_positions=int(rope["original_max_position_embeddings"]),
        )
    except KeyError as error:
        raise ConfigError(f"config.json: rope_type 'llama3' lacks {error}; add it to the rope settings") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"config.json: rope_type 'llama3' has a setting that is not a number: {error}") from error
