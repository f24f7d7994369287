"""From any checkpoint format to Hugging Face or Megatron: read, write, read back, prove; the target appears whole or not at all."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from megatron_astro.checkpoint.distributed import METADATA_FILE, DistributedReader
from megatron_astro.checkpoint.distributed_writer import write_distributed
from megatron_astro.checkpoint.gguf import MAGIC, GgufReader
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import write_hugging_face
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.parity import PARITY_FILE, Format, compare_logits
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.files import atomic_folder
from megatron_astro.records import ParityRecord, write_record

logger = logging.getLogger(__name__)

SourceFormat = Literal["huggingface", "megatron", "gguf"]
Dtype = Literal["float32", "bfloat16", "float16"]
Verification = Literal["logits", "headers"]

READERS: dict[SourceFormat, Callable[[Path], WeightReader]] = {
    "huggingface": HuggingFaceReader,
    "megatron": DistributedReader,
    "gguf": GgufReader,
}
WRITERS = {"huggingface": write_hugging_face, "megatron": write_distributed}
OBVIOUS_TARGET: dict[SourceFormat, Format] = {"huggingface": "megatron", "megatron": "huggingface", "gguf": "huggingface"}
SPARE_BYTES = 100_000_000  # for tokenizer files and headers


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did."""

    source_format: SourceFormat
    target_format: Format
    target: Path
    num_tensors: int
    num_parameters: int
    num_bytes: int
    seconds: float
    parity: ParityRecord | None

    def summary(self) -> str:
        """One line for the user."""
        proof = "names, types and shapes checked; logits not compared"
        if self.parity:
            proof = f"logits agree within {self.parity.max_abs_logit_difference:.1e} (limit {self.parity.tolerance:.0e})"
        size = f"{self.num_tensors} tensors, {self.num_parameters / 1e6:.1f} million parameters, {self.num_bytes / 1e9:.2f} GB"
        return f"{self.target}: {size}, {self.source_format} -> {self.target_format} in {self.seconds:.1f} s; {proof}"


def convert(
    source: Path,
    target: Path,
    *,
    target_format: Format | None = None,
    dtype: Dtype | None = None,
    verification: Verification = "logits",
) -> Conversion:
    """Convert `source` into the new folder `target`.

    `target_format` None means the other one (GGUF: Hugging Face); `dtype` None keeps the stored types (GGUF: float32). "logits"
    loads both models in float32, one after the other; "headers" is for models too large for that. CheckpointError when the source is
    incomplete or the result not the same model, ConfigError when the model or the target cannot be used; then no target is left.
    """
    started = time.monotonic()
    source_format = detect_format(source)
    target_format = target_format or OBVIOUS_TARGET[source_format]
    if source_format == "gguf" and target_format == "megatron":
        raise ConfigError(f"{source} is a GGUF file; convert it to a Hugging Face folder first, then that folder to megatron")
    reader = READERS[source_format](source)
    groups = tensor_groups(reader.sizes)
    chosen = None if dtype is None else getattr(torch, dtype)
    num_bytes = sum(group.num_parameters * (chosen or reader.dtype(group)).itemsize for group in groups)
    parity = None
    try:
        with atomic_folder(target) as partial:
            _check_space(target, num_bytes)
            logger.info("convert: %s (%s) -> %s (%s), %.2f GB", source, source_format, target, target_format, num_bytes / 1e9)
            WRITERS[target_format](partial, reader, chosen)
            READERS[target_format](partial)  # every tensor is there, once, in its shape
            if verification == "logits" and source_format != "gguf":  # a GGUF has no second program here to compare with
                ends = (source, source_format), (partial, target_format)
                parity = compare_logits(*ends, reader.sizes, rounded_to=chosen, target_name=str(target))
                write_record(partial / PARITY_FILE, parity)
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror}; free the disk or name another target") from error
    return Conversion(
        source_format=source_format,
        target_format=target_format,
        target=target,
        num_tensors=sum(len(group.names) for group in groups),
        num_parameters=sum(group.num_parameters for group in groups),
        num_bytes=num_bytes,
        seconds=time.monotonic() - started,
        parity=parity,
    )


def detect_format(path: Path) -> SourceFormat:
    """Tell a checkpoint's format from what is in it; CheckpointError when it is none we know."""
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return "gguf"
        raise CheckpointError(f"{path} is a file, but not GGUF; name a GGUF file or a checkpoint folder")
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; name a Hugging Face folder, a Megatron checkpoint folder or a GGUF file")
    if (path / METADATA_FILE).is_file() or next(path.glob("*.distcp"), None):
        return "megatron"
    if (path / "config.json").is_file():
        return "huggingface"
    raise CheckpointError(f"{path} is no checkpoint: it holds neither config.json (Hugging Face) nor {METADATA_FILE} (Megatron)")


def _check_space(target: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < num_bytes + SPARE_BYTES:
        raise CheckpointError(
            f"{target.parent} has {free / 1e9:.2f} GB free, but the checkpoint takes {(num_bytes + SPARE_BYTES) / 1e9:.2f} GB; "
            "free some space or name another target"
        )
