"""From any checkpoint format to Hugging Face or Megatron: read, write, read back, prove; the target appears whole or not at all."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.checkpoint.conversion_plan import (
    ONE_RANK,
    WRITTEN_READERS,
    ConversionPlan,
    Dtype,
    Proof,
    SourceFormat,
    Verification,
    plan_conversion,
)
from megatron_astro.checkpoint.journal import partial_folder, resumable_folder
from megatron_astro.checkpoint.memory_bound import DEFAULT_MAX_RAM, peak_resident_bytes
from megatron_astro.checkpoint.parity import PARITY_FILE, Format, compare_logits
from megatron_astro.checkpoint.shards import SHARD_BYTES, BeforeGroup
from megatron_astro.checkpoint.vocabulary import NewRows
from megatron_astro.checkpoint.writing import ReadBack, bytes_to_write, certify_conversion, write_and_read_back
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError
from megatron_astro.files import fault_and_remedy
from megatron_astro.progress import show_bytes
from megatron_astro.records import CertificateRecord, ParityRecord, write_record

logger = logging.getLogger(__name__)

PROOFS: dict[Proof, str] = {
    "logits": "every tensor read back bit for bit, root {root}; logits agree within {difference:.1e} (limit {tolerance:.0e})",
    "readback": "every tensor read back bit for bit, root {root}; logits not compared",
    "headers": "names, types and shapes checked; logits not compared",
}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did; `peak_bytes` is the most memory the process has had so far."""

    source_format: SourceFormat
    target_format: Format
    target: Path
    num_tensors: int
    num_parameters: int
    num_bytes: int
    seconds: float
    peak_bytes: int
    proof: Proof
    parity: ParityRecord | None
    certificate: CertificateRecord | None

    def summary(self) -> str:
        """One line for the user."""
        proof = PROOFS[self.proof].format(
            root=self.certificate.root if self.certificate else "",
            difference=self.parity.max_abs_logit_difference if self.parity else math.nan,
            tolerance=self.parity.tolerance if self.parity else math.nan,
        )
        size = f"{self.num_tensors} tensors, {self.num_parameters / 1e6:.1f} million parameters, {self.num_bytes / 1e9:.2f} GB"
        effort = f"{self.seconds:.1f} s, at most {self.peak_bytes / 2**20:.0f} MiB of memory"
        return f"{self.target}: {size}, {self.source_format} -> {self.target_format} in {effort}; {proof}"


def convert(
    source: Path,
    target: Path,
    *,
    target_format: Format | None = None,
    dtype: Dtype | None = None,
    verification: Verification = "auto",
    max_ram: int = DEFAULT_MAX_RAM,
    shard_bytes: int = SHARD_BYTES,
    vocabulary_size: int | None = None,
    new_rows: NewRows = "mean",
    layout: RankLayout = ONE_RANK,
    config_from: Path | None = None,
    before_group: BeforeGroup | None = None,
) -> Conversion:
    """Convert `source` into the new folder `target`, or go on where an interrupted conversion of the same stopped.

    Parameters
    ----------
    target_format
        None means the other one (GGUF: Hugging Face).
    dtype
        None keeps the stored types (GGUF: float32).
    verification
        "readback" compares every tensor written with the source, bit for bit, and writes `certificate.json`; "logits" loads both models
        in float32 besides; "headers" only compares names, types and shapes; "auto" is logits where `max_ram` allows, else readback.
    max_ram
        Bytes that this process may have resident, Python and PyTorch (about 0.3 GB) included.
    shard_bytes
        Size of the weight files written; a kill loses at most the two that are on their way to the disk.
    vocabulary_size, new_rows
        Tokens the result has rows for (None keeps the rows there are), and what added rows hold (see `vocabulary.py`).
    layout
        The ranks a legacy Megatron checkpoint is written for.
    config_from
        Hugging Face folder whose configuration and tokenizer a legacy Megatron checkpoint is read with; None means its own.
    before_group
        Called before each group of tensors is read, by the thread that reads it.

    CheckpointError: the source is incomplete, the disk full, or the result not the same model. ConfigError or ParallelError: the model, the
    target, the layout or the memory bound cannot be used.

    After an error of the input no target is left; after a kill, a full disk or a file that cannot be read for now `TARGET.partial` is, to
    be resumed.
    """
    plan = plan_conversion(
        source, target, target_format=target_format, dtype=dtype, verification=verification, max_ram=max_ram,
        shard_bytes=shard_bytes, vocabulary_size=vocabulary_size, new_rows=new_rows, layout=layout, config_from=config_from,
    )  # fmt: skip
    return carry_out(plan, before_group)


def carry_out(plan: ConversionPlan, before_group: BeforeGroup | None = None) -> Conversion:
    """Do what a plan says, or what is left of it; errors and what they leave behind as of `convert`."""
    started = time.monotonic()
    logger.info(
        "convert: %s (%s) -> %s (%s), %.2f GB",
        plan.source,
        plan.source_format,
        plan.target,
        plan.target_format,
        plan.num_bytes / 1e9,
    )
    logger.info("convert: proof by %s: %s", plan.proof, plan.proof_reason)
    try:
        with resumable_folder(plan.target, plan.task(), plan.shards) as journal:
            with show_bytes(bytes_to_write(plan, journal), title="Converting", logger=logger) as advance:
                written = write_and_read_back(plan, journal, before_group, advance)
            parity, certificate = _prove(plan, journal.folder, written)
    except OSError as error:
        partial = partial_folder(plan.target)
        raise CheckpointError(
            f"{plan.target} could not be finished: {fault_and_remedy(error, partial)}, then run the same again to go on, or name another "
            f"target and remove {partial}"
        ) from error
    return Conversion(
        source_format=plan.source_format,
        target_format=plan.target_format,
        target=plan.target,
        num_tensors=plan.num_tensors,
        num_parameters=plan.num_parameters,
        num_bytes=plan.num_bytes,
        seconds=time.monotonic() - started,
        peak_bytes=peak_resident_bytes(),
        proof=plan.proof,
        parity=parity,
        certificate=certificate,
    )


def _prove(plan: ConversionPlan, folder: Path, written: ReadBack) -> tuple[ParityRecord | None, CertificateRecord | None]:
    """Open what was written, which checks that every tensor is there, once, in its shape; then what the plan says."""
    target = WRITTEN_READERS[plan.target_format](folder)
    parity = None
    if plan.proof == "logits" and plan.source_format != "gguf":
        ends = (plan.source, plan.source_format), (folder, plan.target_format)
        parity = compare_logits(
            *ends, plan.source_sizes, rounded_to=plan.dtype, target_name=str(plan.target), target_sizes=plan.reader.sizes
        )
        write_record(folder / PARITY_FILE, parity)
    if plan.proof == "headers":
        return parity, None
    return parity, certify_conversion(plan, target, folder, written, parity)
