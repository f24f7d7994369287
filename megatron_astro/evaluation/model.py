"""Loading a model to examine: a Hugging Face folder on this machine, its tokenizer, and its output matrix set apart.

Shapes: v vocabulary, h hidden size.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.provenance import weights_sha256

logger = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
DtypeChoice = Literal["auto", "float32", "bfloat16"]

# What `from_pretrained` raises on a folder that is incomplete, damaged or of an unknown kind (seen with transformers 5.23).
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)

PROBE_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to be examined.

    `network` maps token ids to the last hidden states [b, s, h]; `output_weight` [v, h] in float32 maps those to logits.
    """

    folder: Path
    network: Any
    tokenizer: Any
    output_weight: Tensor
    device: torch.device
    dtype: torch.dtype
    max_positions: int
    weights_sha256: str
    weights_root: str | None

    @property
    def dtype_name(self) -> str:
        """The number format as records name it, such as `float32`."""
        return str(self.dtype).removeprefix("torch.")


def load_model(folder: Path, device: DeviceChoice = "auto", dtype: DtypeChoice = "auto") -> LoadedModel:
    """Load a folder without asking any network: float32 on a CPU and bfloat16 on a GPU, unless told otherwise.

    Raises
    ------
    CheckpointError
        The folder is missing, no Hugging Face model, incomplete or damaged; or a weight is not in its files (it would be random); or
        the model turns hidden states into logits by more than one matrix.
    ConfigError
        A GPU is asked for and there is none.
    """
    _require_model_folder(folder)
    chosen_device = choose_device(device)
    chosen_dtype = torch.float32 if dtype == "float32" or (dtype == "auto" and chosen_device.type == "cpu") else torch.bfloat16
    started_at_seconds = time.monotonic()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model = _load_network(folder, chosen_dtype).to(chosen_device).eval()
    loaded = LoadedModel(
        folder=folder,
        network=model.base_model,
        tokenizer=_load_tokenizer(folder),
        output_weight=model.get_output_embeddings().weight.detach().float(),
        device=chosen_device,
        dtype=chosen_dtype,
        max_positions=model.config.max_position_embeddings,
        weights_sha256=weights_sha256(folder),
        weights_root=_weights_root(folder),
    )
    _require_plain_output(model, loaded)
    load_seconds = time.monotonic() - started_at_seconds
    logger.info("loaded %s in %s on %s (%.1f s)", folder, loaded.dtype_name, chosen_device, load_seconds)
    return loaded


def choose_device(device: DeviceChoice) -> torch.device:
    """A GPU where there is one and it is not ruled out; ConfigError when one is asked for in vain."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no GPU here; use device cpu, or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _require_model_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; name a Hugging Face model folder on this machine")
    if (folder / ".metadata").exists():
        raise CheckpointError(
            f"{folder} is a Megatron checkpoint; convert it first: python tools/convert_checkpoint.py {folder} TARGET"
        )
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} has no config.json; name a Hugging Face model folder")


def _load_network(folder: Path, dtype: torch.dtype) -> Any:
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="sdpa", output_loading_info=True
        )
    except LOADING_ERRORS as error:
        raise CheckpointError(
            f"cannot load a model from {folder}: {_first_line(error)}; fetch or convert the folder again"
        ) from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise CheckpointError(
            f"{folder} lacks {len(absent)} of the model's tensors, {absent[0]} for one; they would be random: fetch or convert it again"
        )
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except LOADING_ERRORS as error:
        raise CheckpointError(
            f"cannot load a tokenizer from {folder}: {_first_line(error)}; add the model's tokenizer.json"
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer in {folder} cannot say which characters a token covers; add the model's tokenizer.json"
        )
    return tokenizer


def _weights_root(folder: Path) -> str | None:
    """The root of a LLaMA's weights, which its certificates have in any format; None, and why in the log, for another model."""
    try:
        return certify(HuggingFaceReader(folder)).root
    except (CheckpointError, ConfigError) as error:
        logger.info("%s: no root of its weights is recorded: %s", folder, error)
        return None


def _require_plain_output(model: Any, loaded: LoadedModel) -> None:
    """Check on a few tokens that logits are hidden states times the output matrix: some architectures cap or scale them."""
    tokens = torch.arange(min(PROBE_TOKENS, loaded.output_weight.shape[0]), device=loaded.device).unsqueeze(0)
    with torch.inference_mode():
        expected = model(tokens, use_cache=False).logits.float()
        found = loaded.network(tokens, use_cache=False).last_hidden_state.float() @ loaded.output_weight.T
    # Both round a sum of h products; h * epsilon of the format bounds the relative error of the sum of magnitudes, taken as 1 here.
    tolerance = loaded.output_weight.shape[1] * torch.finfo(loaded.dtype).eps * max(1.0, float(expected.abs().max()))
    difference = float((found - expected).abs().max())
    if not difference <= tolerance:
        raise CheckpointError(
            f"{loaded.folder}: logits of a {model.config.model_type} model are not its hidden states times its output matrix "
            f"(they differ by {difference:.2g}); only LLaMA-like outputs can be scored"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
