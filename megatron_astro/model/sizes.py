"""The shape of a LLaMA, read from a Hugging Face `config.json`; what our model cannot express is refused by name."""

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
        hidden = _number(config, "hidden_size")
        theta, scaling = _read_rope(config)
        return cls(
            num_layers=_number(config, "num_hidden_layers"),
            hidden_size=hidden,
            ffn_size=_number(config, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or hidden // heads,
            vocabulary_size=_number(config, "vocab_size"),
            max_positions=config.get("max_position_embeddings", 2048),
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tied_embeddings=config.get("tie_word_embeddings", False),
        )

    @property
    def num_parameters(self) -> int:
        """Trainable numbers in the whole model; tied embeddings count once."""
        attention = self.hidden_size * self.head_size * 2 * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.ffn_size + 2 * self.hidden_size
        embeddings = self.vocabulary_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


def _number(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ConfigError(f"config.json: {key} is {value!r}; a LLaMA needs a positive whole number there")
    return value


def _refuse_unknown_features(config: dict[str, Any]) -> None:
    if config.get("model_type") != "llama":
        raise ConfigError(f"config.json: model_type is {config.get('model_type')!r}; only 'llama' models are supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"config.json: hidden_act is {config['hidden_act']!r}; only 'silu' is supported")
    for key in ("attention_bias", "mlp_bias", "sliding_window", "quantization_config"):
        if config.get(key):
            raise ConfigError(
                f"config.json: {key} is {config[key]!r}; it is not supported, and dropping it would change the model"
            )


def _read_rope(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Theta and scaling from transformers 5's `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    rope = config.get("rope_parameters") or {**(config.get("rope_scaling") or {})}
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
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
