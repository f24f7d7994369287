"""What a conversion will do, known from headers alone: formats, files, memory, disk, proof. Making a plan writes nothing."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER, DistributedReader
from megatron_astro.checkpoint.distributed_writer import DistributedWriter
from megatron_astro.checkpoint.gguf import MAGIC, GgufReader
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.journal import Task, partial_folder, refuse_unfinished, require_no_target, source_state
from megatron_astro.checkpoint.legacy import LegacyReader, is_legacy
from megatron_astro.checkpoint.legacy_writer import LegacyWriter
from megatron_astro.checkpoint.memory_bound import MemoryNeed, logits_check_bytes, memory_need, require_within
from megatron_astro.checkpoint.metadata_table import METADATA_FILE
from megatron_astro.checkpoint.names import named_shapes, tensor_groups
from megatron_astro.checkpoint.parity import Format, probe_tokens
from megatron_astro.checkpoint.reader import StoredReader, WeightReader
from megatron_astro.checkpoint.shards import Shard, Writer, stored_bytes
from megatron_astro.checkpoint.vocabulary import GrownReader, NewRows, warn_of_tokens_without_rows
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.model.sizes import LlamaSizes

SourceFormat = Literal["huggingface", "megatron", "megatron-legacy", "gguf"]
Dtype = Literal["float32", "bfloat16", "float16"]
Verification = Literal["auto", "logits", "readback", "headers"]
Proof = Literal["logits", "readback", "headers"]

READERS: dict[SourceFormat, Callable[[Path], WeightReader]] = {
    "huggingface": HuggingFaceReader,
    "megatron": DistributedReader,
    "megatron-legacy": LegacyReader,
    "gguf": GgufReader,
}
WRITTEN_READERS: dict[Format, Callable[[Path], StoredReader]] = {
    "huggingface": HuggingFaceReader,
    "megatron": DistributedReader,
    "megatron-legacy": LegacyReader,
}
OBVIOUS_TARGET: dict[SourceFormat, Format] = {
    "huggingface": "megatron",
    "megatron": "huggingface",
    "megatron-legacy": "huggingface",
    "gguf": "huggingface",
}
ONE_RANK = RankLayout()
LEAST_SHARD_BYTES = 1000  # below it is a size whose unit was forgotten, and each tensor would get a file of its own
SPARE_BYTES = 100_000_000  # for tokenizer files and headers


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """An opened source and all that follows from it and the options; sizes in bytes. `reader` gives what is written: a grown vocabulary."""

    source: Path
    source_format: SourceFormat
    target: Path
    target_format: Format
    layout: RankLayout
    config_from: Path | None
    writer: Writer
    source_sizes: LlamaSizes
    reader: WeightReader
    new_rows: NewRows
    dtype: torch.dtype | None
    shards: tuple[Shard, ...]
    shard_bytes: int
    num_bytes: int
    memory: MemoryNeed
    max_ram: int
    free_bytes: int
    proof: Proof
    proof_reason: str

    @property
    def num_tensors(self) -> int:
        """Hugging Face tensors to be written."""
        return len(named_shapes(self.reader.sizes))

    @property
    def num_parameters(self) -> int:
        """Numbers in them."""
        return self.reader.sizes.num_parameters

    def task(self) -> Task:
        """What a resumed run must agree with."""
        return Task(
            source=str(self.source.resolve()),
            source_state=source_state(self.source, self.target),
            target_format=self.target_format,
            dtype=None if self.dtype is None else str(self.dtype),
            shard_bytes=self.shard_bytes,
            torch=torch.__version__,
            vocabulary_size=self.reader.sizes.vocabulary_size,
            new_rows=self.new_rows,
            layout=str(self.layout) if self.target_format == "megatron-legacy" else "",
            config_from="" if self.config_from is None else str(self.config_from.resolve()),
        )

    def summary(self) -> str:
        """Some lines for the user."""
        need, layout = self.memory, self.layout
        ranks = f" for tp {layout.tp} x pp {layout.pp} x vpp {layout.vpp}" if self.target_format == "megatron-legacy" else ""
        size = f"files: {sum(len(shard.files) for shard in self.shards)}" + (
            "" if ranks else f" of up to {self.shard_bytes / 1e9:.2f} GB"
        )
        return (
            f"source: {self.source} ({self.source_format})\n"
            f"target: {self.target} ({self.target_format}{ranks}); weight {size}\n"
            f"tensors: {self.num_tensors} with {self.num_parameters / 1e6:.1f} million parameters, "
            f"{self.num_bytes} bytes to write as {self.dtype or 'stored'}\n"
            f"memory: about {need.num_bytes / 2**20:.0f} MiB at most of {self.max_ram / 2**20:.0f} MiB allowed, for {need.num_threads} "
            "threads with blocks of tensors\n"
            f"disk: {self.free_bytes / 1e9:.2f} GB free in {self.target.parent}, {(self.num_bytes + SPARE_BYTES) / 1e9:.2f} GB needed\n"
            f"proof: {self.proof} ({self.proof_reason})\n"
            "nothing was written"
        )


def plan_conversion(
    source: Path,
    target: Path,
    *,
    target_format: Format | None,
    dtype: Dtype | None,
    verification: Verification,
    max_ram: int,
    shard_bytes: int,
    vocabulary_size: int | None = None,
    new_rows: NewRows = "mean",
    layout: RankLayout = ONE_RANK,
    config_from: Path | None = None,
) -> ConversionPlan:
    """Open the source, check all that headers can tell, and plan; arguments as of `convert`. Touches nothing."""
    source_format = detect_format(source)
    target_format = target_format or OBVIOUS_TARGET[source_format]
    _refuse_contradictions(source, source_format, target_format, layout, config_from)
    _refuse_forgotten(shard_bytes, vocabulary_size, new_rows)
    require_no_target(target)
    stored = open_checkpoint(source) if config_from is None else LegacyReader(source, config_from)
    reader = stored if vocabulary_size is None else GrownReader(stored, vocabulary_size, new_rows)
    chosen = None if dtype is None else getattr(torch, dtype)
    num_bytes = sum(stored_bytes(group, reader, chosen) for group in tensor_groups(reader.sizes))
    require_within(memory := memory_need(reader), max_ram)
    proof, reason = _choose_proof(verification, source_format, reader.sizes.num_parameters, max_ram, config_from)
    _check_tokenizer(stored, config_from or model_files_folder(source, source_format), reader.sizes.vocabulary_size, proof)
    writer = make_writer(target_format, layout)
    return ConversionPlan(
        source=source,
        source_format=source_format,
        target=target,
        target_format=target_format,
        layout=layout,
        config_from=config_from,
        writer=writer,
        source_sizes=stored.sizes,
        reader=reader,
        new_rows=new_rows,
        dtype=chosen,
        shards=writer.plan(reader, chosen, shard_bytes),
        shard_bytes=shard_bytes,
        num_bytes=num_bytes,
        memory=memory,
        max_ram=max_ram,
        free_bytes=check_space(target, num_bytes),
        proof=proof,
        proof_reason=reason,
    )


def _check_tokenizer(reader: WeightReader, model_files: Path, vocabulary_size: int, proof: Proof) -> None:
    """Say now, not when all weights are written, that a tokenizer cannot be written or used for the proof, or has tokens without rows."""
    if isinstance(reader, GgufReader):
        reader.tokenizer_files()
        return
    warn_of_tokens_without_rows(model_files, vocabulary_size)
    if proof == "logits":
        probe_tokens(model_files, reader.sizes)


def model_files_folder(path: Path, source_format: SourceFormat) -> Path:
    """Where a checkpoint's config.json and tokenizer are."""
    return path / MODEL_FILES_FOLDER if source_format in ("megatron", "megatron-legacy") else path


def make_writer(target_format: Format, layout: RankLayout) -> Writer:
    """What writes a format; only the legacy one is cut for a layout."""
    if target_format == "megatron-legacy":
        return LegacyWriter(layout)
    return HuggingFaceWriter() if target_format == "huggingface" else DistributedWriter()


def open_checkpoint(path: Path) -> WeightReader:
    """Open a checkpoint of any format; CheckpointError when it is none, or not complete."""
    return READERS[detect_format(path)](path)


def detect_format(path: Path) -> SourceFormat:
    """Tell a checkpoint's format from what is in it; CheckpointError when it is none we know, or unfinished."""
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return "gguf"
        raise CheckpointError(f"{path} is a file, but not GGUF; name a GGUF file or a checkpoint folder")
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; name a Hugging Face folder, a Megatron checkpoint folder or a GGUF file")
    refuse_unfinished(path)
    if (path / METADATA_FILE).is_file() or next(path.glob("*.distcp"), None):
        return "megatron"
    if is_legacy(path):
        return "megatron-legacy"
    if (path / "config.json").is_file():
        return "huggingface"
    if found := next(path.glob(f"*/{METADATA_FILE}"), None):
        raise CheckpointError(f"{path} is no checkpoint, but {found.parent} in it is: name that folder")
    raise CheckpointError(
        f"{path} is no checkpoint: it holds neither config.json (Hugging Face) nor {METADATA_FILE} (Megatron) nor ranks' folders mp_rank_* "
        "(legacy Megatron)"
    )


def _refuse_contradictions(
    source: Path, source_format: SourceFormat, target_format: Format, layout: RankLayout, config_from: Path | None
) -> None:
    """ConfigError for formats and options that do not go together."""
    if source_format == "gguf" and target_format != "huggingface":
        raise ConfigError(
            f"{source} is a GGUF file; convert it to a Hugging Face folder first, then that folder to {target_format}"
        )
    if target_format != "megatron-legacy" and layout != ONE_RANK:
        given = ", ".join(
            f"--{key.replace('_', '-')} {value}" for key, value in asdict(layout).items() if value != getattr(ONE_RANK, key)
        )
        raise ConfigError(
            f"{given} is for --format megatron-legacy alone; what is written here, --format {target_format}, loads at any layout: leave it "
            "out, or choose that format"
        )
    if config_from is not None and source_format != "megatron-legacy":
        raise ConfigError(f"config_from is for legacy Megatron checkpoints without a configuration; {source} has its own")


def _refuse_forgotten(shard_bytes: int, vocabulary_size: int | None, new_rows: NewRows) -> None:
    if shard_bytes < LEAST_SHARD_BYTES:
        raise ConfigError(
            f"max_shard is {shard_bytes} bytes, too few for a file of weights; give a size with its unit, such as 2GB"
        )
    if vocabulary_size is None and new_rows != "mean":
        raise ConfigError(f"new_rows is {new_rows!r}, but no row is added; give --vocabulary-size too, or leave it out")


def _choose_proof(
    verification: Verification, source_format: SourceFormat, num_parameters: int, max_ram: int, config_from: Path | None
) -> tuple[Proof, str]:
    """The proof and why; ConfigError when logits were asked for by name and cannot be had."""
    if verification in ("readback", "headers"):
        return verification, "as asked for"
    obstacle = None
    if (needed := logits_check_bytes(num_parameters)) > max_ram:
        obstacle = f"comparing logits takes about {needed / 2**30:.1f} GiB, max_ram is {max_ram / 2**30:.1f} GiB"
    if source_format == "gguf":
        obstacle = "no second program here computes logits from a GGUF file"
    if config_from is not None:
        obstacle = "the source is read with the configuration of another folder"
    if obstacle is None:
        return "logits", "both models fit in max_ram, one after the other"
    if verification == "logits":
        raise ConfigError(f"logits cannot be compared: {obstacle}; choose the verification auto, readback or headers")
    return "readback", f"logits are not compared: {obstacle}"


def check_space(target: Path, num_bytes: int) -> int:
    """Free bytes where the target goes, those of an unfinished one included; CheckpointError if they will not do."""
    existing = next(folder for folder in target.absolute().parents if folder.exists())
    partial = partial_folder(target)
    kept = 512 * sum(
        path.stat().st_blocks for path in partial.rglob("*") if path.is_file()
    )  # files have their length before their content
    free = shutil.disk_usage(existing).free + kept
    if free < num_bytes + SPARE_BYTES:
        raise CheckpointError(
            f"{target.parent} has {free / 1e9:.2f} GB free, but the checkpoint takes {(num_bytes + SPARE_BYTES) / 1e9:.2f} GB; "
            "free some space or name another target"
        )
    return free
