"""What stages hand each other: the typed contents of every file the workflow writes.

Records are frozen dataclasses stored as JSON (one object) or JSONL (one object a line); `read_record` and `read_lines` check
every field's type and say which file, line and field is wrong.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from megatron_astro.errors import DataError
from megatron_astro.files import write_atomic

Letter = Literal["A", "B", "C", "D"]
LETTERS: tuple[Letter, Letter, Letter, Letter] = ("A", "B", "C", "D")
Method = Literal["letter", "answer_text"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One four-option question; a line of an exam JSONL file."""

    id: str
    question: str
    options: tuple[str, str, str, str]
    answer: Letter
    group: str = ""
    topic: str = ""
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Under what a record was made: versions of the programs, the command, the time (UTC, ISO 8601)."""

    command: str
    created: str
    versions: dict[str, str]
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One optimizer step; a line of `metrics.jsonl`. A loss or gradient norm that is not finite is null: JSON has no such number."""

    step: int
    loss: float | None
    grad_norm: float | None
    learning_rate: float
    consumed_samples: int
    consumed_tokens: int
    step_seconds: float
    tokens_per_second: float
    skipped: bool = False
    num_labels: int | None = None
    """Labels of the batch whose loss counts; none in records of before."""


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """A sample as a rank was fed it: its number in the stream, its documents, a checksum of its tokens; `ledger/dp_*.jsonl`."""

    step: int
    sample: int
    documents: tuple[str | int, ...]
    tokens_crc32: int


@dataclass(frozen=True, kw_only=True)
class HeldoutPoint:
    """Held-out loss (nats per token) after a number of optimizer steps; a line of `heldout.jsonl`."""

    step: int
    loss: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class LayoutRecord:
    """How a run was spread over ranks (`layout.json` in a run folder)."""

    world_size: int
    tp: int
    pp: int
    dp: int
    sequence_parallel: bool
    distributed_optimizer: bool
    layers_per_stage: tuple[int, ...]
    vpp: int = 1
    device: str
    dtype: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """Wall time of one stage of the workflow."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StagesRecord:
    """Wall time of every stage of a workflow, in order; `stages.json`."""

    stages: tuple[StageSeconds, ...]


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """Proof of a conversion: both models' float32 logits on the same fixed tokens (`parity.json` in a checkpoint)."""

    source: str
    target: str
    probe_tokens: tuple[int, ...]
    max_abs_logit_difference: float
    tolerance: float
    source_probe_loss: float
    target_probe_loss: float
    num_tensors: int
    num_parameters: int
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """What a run began from and the proof that its ranks hold that model (`start.json` in a run folder): its loss on the probe tokens,
    in nats, beside that of the source, and what computed the latter. `root` of its weights as the ranks computed it, null where
    `training.certify` had them compute none.
    """

    path: str
    format: str
    probe_tokens: tuple[int, ...]
    source_probe_loss: float
    start_probe_loss: float
    tolerance: float
    proven_by: str
    root: str | None
    num_parameters: int
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class MergeSource:
    """A model that went into a merge; the base has no weight, and only sparse methods have a density."""

    path: str
    weights_sha256: str
    weight: float | None = None
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class MergeRecord:
    """How a model was merged: the recipe, whose same numbers make the same bytes, and the sources (`merge.json` in a checkpoint)."""

    method: str
    arithmetic: str
    dtypes: tuple[str, ...]
    base: MergeSource | None
    sources: tuple[MergeSource, ...]
    scale: float
    consensus: str | None
    seed: int | None
    num_tensors: int
    num_parameters: int
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class TensorDigest:
    """One tensor under its Hugging Face name; `data` is the root over its bytes, in hexadecimal (checkpoint/digest.py)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True)
class CertifiedSource:
    """What a certified checkpoint was converted from: its own root, and the root of its tensors rounded to the types written."""

    path: str
    root: str
    rounded_root: str


@dataclass(frozen=True, kw_only=True)
class CertifiedLogits:
    """How closely the two ends' float32 logits agree; `parity.json` has the whole proof."""

    max_abs_logit_difference: float
    tolerance: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class CertificateRecord:
    """Which weights a checkpoint holds (`certificate.json`): their root, the tensors it is made of, the numbers that use them."""

    digest_format: str
    root: str
    num_bytes: int
    num_parameters: int
    settings: dict[str, bool | int | float | None]
    tensors: tuple[TensorDigest, ...]
    source: CertifiedSource | None = None
    logits: CertifiedLogits | None = None
    provenance: Provenance


Record = TypeVar("Record")


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read one JSON record of the given kind; DataError names the file and the field that is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; it should hold a {kind.__name__}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; it should be a file that holds a {kind.__name__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not a {kind.__name__}: {error}") from error


def write_record(path: Path, record: object) -> None:
    """Write one record as indented JSON, atomically."""
    write_atomic(path, json.dumps(to_plain(record), indent=2, ensure_ascii=False) + "\n")


def to_plain(record: object) -> dict[str, Any]:
    """A dataclass as plain dictionaries and lists, ready for JSON."""
    return asdict(record)  # type: ignore[call-overload, no-any-return]


def read_lines(path: Path, kind: type[Record]) -> Iterator[Record]:
    """Read a JSONL file of records; DataError names the file, the line and the field that is wrong. Empty lines are skipped."""
    return (record for _, record in read_numbered_lines(path, kind))


def read_numbered_lines(path: Path, kind: type[Record]) -> Iterator[tuple[int, Record]]:
    """As `read_lines`, each record with the number of its line, counted from 1."""
    try:
        lines = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name an existing JSONL file") from error
    decoder = msgspec.json.Decoder(kind)
    with lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                line.decode("utf-8")
                yield number, decoder.decode(line)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); "
                    "save the file as UTF-8"
                ) from error
            except (msgspec.DecodeError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not a {kind.__name__}: {error}") from error
