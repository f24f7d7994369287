"""What the options of a Megatron training run (`args` in its checkpoints) say of the model: made of its sizes, read back, compared."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

logger = logging.getLogger(__name__)

# What `--use-rope-scaling` of Megatron's scripts means, beside the factor.
LOW_FREQUENCY, HIGH_FREQUENCY, ORIGINAL_POSITIONS = 1.0, 4.0, 8192
# Options that make something else than a LLaMA, with the values that do not. Options that are absent do not either.
LLAMA_OPTIONS: dict[str, tuple[object, ...]] = {
    "position_embedding_type": ("rope",),
    "normalization": ("RMSNorm",),
    "swiglu": (True,),
    "add_bias_linear": (False,),
    "add_qkv_bias": (False,),
    "qk_layernorm": (False,),
    "apply_layernorm_1p": (False,),
    "rotary_interleaved": (False,),
    "rotary_percent": (1,),
    "rotary_seq_len_interpolation_factor": (None, 1),
    "multi_latent_attention": (False,),
    "num_experts": (None, 0),
    "window_size": (None,),
    "apply_residual_connection_post_layernorm": (False,),
}


def training_options(sizes: LlamaSizes, layout: RankLayout, *, vocabulary_rows: int, layers_per_chunk: int) -> dict[str, Any]:
    """The options with which Megatron's training scripts build this model."""
    return {
        **{name: values[0] for name, values in LLAMA_OPTIONS.items()},
        **model_options(sizes),
        "add_position_embedding": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "max_position_embeddings": sizes.max_positions,
        "seq_length": sizes.max_positions,
        "vocab_size": sizes.vocabulary_size,
        "padded_vocab_size": vocabulary_rows,
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "virtual_pipeline_model_parallel_size": layout.vpp if layout.vpp > 1 else None,
        "num_layers_per_virtual_pipeline_stage": layers_per_chunk if layout.vpp > 1 else None,
        "transformer_impl": layout.layer_spec,
        "use_rotary_position_embeddings": True,
    }


def model_options(sizes: LlamaSizes) -> dict[str, Any]:
    """Options that follow from the model's sizes alone."""
    return {
        "num_layers": sizes.num_layers,
        "hidden_size": sizes.hidden_size,
        "ffn_hidden_size": sizes.ffn_size,
        "num_attention_heads": sizes.num_heads,
        "group_query_attention": sizes.num_kv_heads != sizes.num_heads,
        "num_query_groups": sizes.num_kv_heads,
        "kv_channels": sizes.head_size,
        "norm_epsilon": sizes.norm_epsilon,
        "rotary_base": int(sizes.rope_theta) if sizes.rope_theta.is_integer() else sizes.rope_theta,
        "use_rope_scaling": sizes.rope_scaling is not None,
        "rope_scaling_factor": sizes.rope_scaling.factor if sizes.rope_scaling else 8.0,
        "untie_embeddings_and_output_weights": not sizes.tied_embeddings,
    }


def check_options(options: Mapping[str, Any], sizes: LlamaSizes, where: Path) -> None:
    """CheckpointError where a run's options contradict the model's configuration; options it does not have say nothing."""
    refuse_other_models(options, where)
    expected = model_options(sizes)
    if not expected["group_query_attention"] or options.get("group_query_attention") is False:
        expected.pop("num_query_groups")  # Megatron's default of 1 means nothing without grouped queries
    if sizes.rope_scaling is None:
        expected.pop("rope_scaling_factor")
    for name, value in expected.items():
        found = options.get(name)
        if found is not None and found != value:
            raise CheckpointError(
                f"{where}: the run that saved it had {name} = {found!r}, but config.json demands {value!r}; use the model's own "
                "config.json"
            )
    rows = options.get("padded_vocab_size")
    if rows is not None and (not isinstance(rows, int) or rows < sizes.vocabulary_size):
        raise CheckpointError(f"{where}: padded_vocab_size is {rows!r}, but config.json has {sizes.vocabulary_size} tokens")


def refuse_other_models(options: Mapping[str, Any], where: Path) -> None:
    """CheckpointError, naming the option, when the saving run's model was no LLaMA."""
    for name, accepted in LLAMA_OPTIONS.items():
        rotary = name == "position_embedding_type" and options.get("use_rotary_position_embeddings")
        if name in options and options[name] not in accepted and not rotary:
            raise CheckpointError(
                f"{where}: the run that saved it had {name} = {options[name]!r}; only {accepted[0]!r} makes a LLaMA"
            )


def config_from_options(options: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """A config.json as far as a run's options tell; CheckpointError names those that are missing."""
    refuse_other_models(options, where)
    needed = (
        "num_layers",
        "hidden_size",
        "ffn_hidden_size",
        "num_attention_heads",
        "padded_vocab_size",
        "max_position_embeddings",
    )
    optional = ("norm_epsilon", "untie_embeddings_and_output_weights")
    if missing := [name for name in (*needed, *optional) if options.get(name) is None]:
        raise CheckpointError(
            f"{where} has no huggingface/config.json beside it, and its args lack {', '.join(missing)}; name a Hugging Face folder of "
            "the same model with --config-from"
        )
    heads = options["num_attention_heads"]
    grouped = options.get("group_query_attention") and options.get("num_query_groups")
    scaling = {
        "rope_type": "llama3", "factor": options.get("rope_scaling_factor") or 8.0, "low_freq_factor": LOW_FREQUENCY,
        "high_freq_factor": HIGH_FREQUENCY, "original_max_position_embeddings": ORIGINAL_POSITIONS,
    }  # fmt: skip
    _tell_what_is_missing(options, where)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": options.get("vocab_size") or options["padded_vocab_size"],
        "hidden_size": options["hidden_size"],
        "intermediate_size": options["ffn_hidden_size"],
        "num_hidden_layers": options["num_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": options["num_query_groups"] if grouped else heads,
        "head_dim": options.get("kv_channels") or options["hidden_size"] // heads,
        "max_position_embeddings": options["max_position_embeddings"],
        "rms_norm_eps": options["norm_epsilon"],
        "rope_theta": float(options.get("rotary_base") or 10000),
        "rope_scaling": scaling if options.get("use_rope_scaling") else None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": not options["untie_embeddings_and_output_weights"],
    }


def _tell_what_is_missing(options: Mapping[str, Any], where: Path) -> None:
    if not options.get("vocab_size"):
        logger.warning(
            "%s does not say how many of its %d vocabulary rows are padding, so all are kept; --config-from a Hugging Face folder knows",
            where, options["padded_vocab_size"],
        )  # fmt: skip
    logger.warning(
        "%s has no huggingface/ folder: config.json is made of the saving run's options, and there is no tokenizer; --config-from a "
        "Hugging Face folder of the same model brings both",
        where,
    )


def warn_of_scaling(sizes: LlamaSizes) -> None:
    """Log a RoPE scaling that Megatron's options cannot say."""
    scaling = sizes.rope_scaling
    usual = (LOW_FREQUENCY, HIGH_FREQUENCY, ORIGINAL_POSITIONS)
    if scaling and (scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_positions) != usual:
        logger.warning(
            "%s is not what --use-rope-scaling of Megatron's scripts means (%s, %s and %d positions): they would compute another model",
            scaling, *usual,
        )  # fmt: skip
