"""What a run begins from: a Megatron checkpoint or a Hugging Face folder, loaded at this run's layout and proven to be that model.

The proof is a loss: before the first step, the run's own loss on a fixed text (`checkpoint/parity.py`) must be that of the model it began
from, within `model.start_tolerance`. A Megatron checkpoint carries that loss from its conversion (`parity.json`); for a Hugging Face folder
rank 0 computes it with transformers' own layers (`checkpoint/probe.py`). A weight out of place, a wrong norm or rotary setting, or another
model moves it; what float32 or bfloat16 rounding does stays below. `start.json` in the run folder says what was proven.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_astro.checkpoint.certify import CERTIFICATE_FILE, read_certificate
from megatron_astro.checkpoint.conversion_plan import detect_format
from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER, DistributedReader
from megatron_astro.checkpoint.huggingface import HuggingFaceReader, read_config, sizes_of
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.parity import PARITY_FILE, probe_tokens
from megatron_astro.checkpoint.probe import hugging_face_probe_loss
from megatron_astro.checkpoint.sharded_model import load_slices
from megatron_astro.checkpoint.shared_certificate import When, certify_together
from megatron_astro.checkpoint.training_state import load_weights
from megatron_astro.config.run import ModelConfig
from megatron_astro.errors import CheckpointError, ConfigError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import ParallelPlan
from megatron_astro.provenance import current_provenance
from megatron_astro.records import ParityRecord, StartRecord, read_record
from megatron_astro.training.validation import Probe, check_start

logger = logging.getLogger(__name__)

StartFormat = Literal["huggingface", "megatron"]

START_FILE = "start.json"


@dataclass(frozen=True)
class Start:
    """A checkpoint to begin from, whose format and configuration were read."""

    path: Path
    format: StartFormat
    sizes: LlamaSizes

    @property
    def model_files(self) -> Path:
        """Folder of its config.json and tokenizer."""
        return model_files(self.path, self.format)

    def check(self) -> None:
        """CheckpointError when a Hugging Face folder's headers say it is not complete; loading checks a Megatron checkpoint."""
        if self.format == "huggingface":
            HuggingFaceReader(self.path)


def open_start(path: Path) -> Start:
    """Tell what is to be started from; CheckpointError when it is neither a Megatron checkpoint nor a Hugging Face folder."""
    try:
        found = detect_format(path)
    except CheckpointError as error:
        raise CheckpointError(f"model.init_from: {error}") from error
    if found == "gguf":
        raise CheckpointError(f"model.init_from: {path} is a GGUF file; make a Hugging Face folder of it with convert_checkpoint")
    if found == "megatron-legacy":
        raise CheckpointError(
            f"model.init_from: {path} is a legacy Megatron checkpoint; convert it to megatron with convert_checkpoint"
        )
    return Start(path, found, _sizes_in(model_files(path, found)))


def resumed_start(init_from: Path, checkpoint: Path) -> Start:
    """What a run goes on with: its own checkpoint. ConfigError where `init_from`, if it is still there, is a model of other numbers."""
    sizes = _sizes_in(model_files(checkpoint, "megatron"))
    if not init_from.exists():
        logger.warning("model.init_from: %s is gone; its sizes are those that %s holds", init_from, checkpoint)
        return Start(checkpoint, "megatron", sizes)
    given = open_start(init_from)
    for field in fields(sizes):
        was, is_now = getattr(sizes, field.name), getattr(given.sizes, field.name)
        if was != is_now:
            raise ConfigError(
                f"model.init_from: {init_from} is not the model of this run: its {field.name} is {is_now}, and {was} in {checkpoint}; "
                "name the model the run began from, or another run_folder"
            )
    return given


def model_files(path: Path, checkpoint_format: StartFormat) -> Path:
    """Where a checkpoint of a format has its config.json and tokenizer."""
    return path / MODEL_FILES_FOLDER if checkpoint_format == "megatron" else path


def _sizes_in(folder: Path) -> LlamaSizes:
    return sizes_of(folder, read_config(folder))


def begin_from(
    start: Start,
    config: ModelConfig,
    model: Sequence[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    plan: ParallelPlan,
    certify: When = "auto",
) -> StartRecord:
    """Load the starting weights, each rank only its own, and prove by the loss on the probe that they are what `start` holds."""
    probe = _load_converted(start, model) if start.format == "megatron" else _load_folder(start, model)
    loss = check_start(model, probe, plan, config.start_tolerance)
    optimizer.reload_model_params()  # the float32 master copies were made before the weights were loaded
    return StartRecord(
        path=str(start.path),
        format=start.format,
        probe_tokens=probe.tokens,
        source_probe_loss=probe.loss,
        start_probe_loss=loss,
        tolerance=config.start_tolerance,
        proven_by=probe.computed_by,
        root=_root(start, certify),
        num_parameters=start.sizes.num_parameters,
        provenance=current_provenance(),
    )


def _root(start: Start, certify: When) -> str | None:
    """Root of the weights to start from, computed by all ranks together; CheckpointError where the certificate beside them has another."""
    reader = DistributedReader(start.path) if start.format == "megatron" else HuggingFaceReader(start.path)
    certificate = certify_together(reader, certify, str(start.path))
    if certificate is None:
        return None
    stated = start.path / CERTIFICATE_FILE
    if stated.is_file() and (root := read_certificate(stated).root) != certificate.root:
        raise CheckpointError(
            f"{start.path} does not hold what its {CERTIFICATE_FILE} says: the root of its weights is {certificate.root}, not {root}; "
            f"fetch or convert it again, or remove {CERTIFICATE_FILE} if the change was meant"
        )
    return certificate.root


def _load_converted(start: Start, model: Sequence[DistributedDataParallel]) -> Probe:
    path = start.path / PARITY_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist, so nothing proves the start: {start.path} is a checkpoint of a training run, or was converted "
            "without comparing logits; convert it (or its Hugging Face folder) with --verification logits and a --max-ram that fits it, "
            "or start from its Hugging Face folder"
        )
    parity = read_record(path, ParityRecord)
    load_weights(start.path, model)
    return Probe(parity.probe_tokens, parity.source_probe_loss, f"the conversion of {parity.source}")


def _load_folder(start: Start, model: Sequence[DistributedDataParallel]) -> Probe:
    """Each rank reads the slices it holds; rank 0 has transformers compute what the loss must be."""
    reader = HuggingFaceReader(start.path)
    for chunk in model:
        load_slices(reader, chunk.module, start.sizes)
    tokens = probe_tokens(start.path, start.sizes)
    device = torch.device(torch.cuda.current_device())
    expected = torch.zeros(1, dtype=torch.float64, device=device)
    if dist.get_rank() == 0:
        expected[0] = hugging_face_probe_loss(reader, tokens, device)
    dist.broadcast(expected, src=0)
    logger.info("start: %d tensors of %s, each rank read its own slices", len(named_shapes(start.sizes)), start.path)
    return Probe(tokens, float(expected), "transformers' own layers in float32")
