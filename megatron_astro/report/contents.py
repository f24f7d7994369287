"""What a report holds: the typed contents of `report.json`. Accuracies are fractions, losses nats per token, times seconds.

Where a value exists once for each group of questions it is a dictionary by group: `exam.answer_text.before.accuracy.taught`,
`exam.answer_text.difference.mean.control`. Questions without a group are in the group `all`. What was not measured is null.
"""

from dataclasses import dataclass
from typing import Literal

from megatron_astro.exam_records import Continuation, GroupContrast
from megatron_astro.records import HeldoutPoint, LayoutRecord, StartRecord

Verdict = Literal["improved", "got_worse", "not_shown"]

CHANCE = 0.25
LARGEST_P_VALUE = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """After minus before, with its 95 % interval (null where there is one document only)."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class HeldoutLoss:
    """Next-token loss on documents kept from training (nats per token)."""

    before: float
    after: float
    difference: Difference
    verdict: Verdict
    num_documents: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """One model's scores, by group."""

    accuracy: dict[str, float]
    standard_error: dict[str, float | None]
    low: dict[str, float]
    high: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """After minus before on the same questions, by group."""

    mean: dict[str, float]
    low: dict[str, float | None]
    high: dict[str, float | None]
    p_value: dict[str, float]
    gained: dict[str, int]
    lost: dict[str, int]
    verdict: dict[str, Verdict]


@dataclass(frozen=True, kw_only=True)
class ChangedQuestion:
    """A question answered right by one of the two models only; the options are given as text."""

    id: str
    group: str
    topic: str
    question: str
    right: str
    before: str
    after: str
    gained: bool


@dataclass(frozen=True, kw_only=True)
class ExamResult:
    """One method's exam before and after."""

    num_questions: dict[str, int]
    num_shots: int
    method_version: str
    before: Sitting
    after: Sitting
    difference: PairedDifference
    contrast: GroupContrast | None
    remarks_before: tuple[str, ...]
    remarks_after: tuple[str, ...]
    remarks: tuple[str, ...]
    changed: tuple[ChangedQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the model was trained on, how long and how fast."""

    tokens: int
    tokens_per_second: float
    steps: int
    skipped_steps: int
    seconds: float
    first_loss: float
    last_loss: float
    seq_length: int
    global_batch_size: int
    learning_rate: float
    dtype: str
    datasets: tuple[str, ...]
    dataset_documents: int | None
    dataset_tokens: int | None
    passes: float | None
    """Tokens trained on over tokens of the datasets."""
    heldout_lowest: HeldoutPoint | None
    """Where the training program's own measurement of the held-out loss was lowest, and how it ended."""
    heldout_last: HeldoutPoint | None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How closely two formats of the same weights agree."""

    max_abs_logit_difference: float
    tolerance: float
    num_parameters: int
    back: float | None
    """Largest logit difference of the conversion back after training, where its proof is kept."""
    root: str | None
    """Root of the weights the run began from, where they were certified: `tools/certify_checkpoint.py` finds it in any format."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """The folders compared."""

    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Weights that sat exams before or after training: their root where it was recorded, and whose among the run's they are."""

    when: str
    methods: tuple[str, ...]
    root: str | None
    whose: str | None
    has_others: bool
    """The run has certified weights, and these are none of them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the report says in words and tables."""

    headline: str
    run: str
    models: Models | None
    heldout_loss: HeldoutLoss | None
    exam: dict[str, ExamResult]
    examined: tuple[Examined, ...]
    """Which weights the exams are of."""
    train: Training
    parity: Parity | None
    start: StartRecord | None
    """What the run began from and how it was proven to hold it."""
    checkpoint_roots: dict[str, str]
    """Roots of the weights of the checkpoints that are kept, by name, where they were certified."""
    exported_root: str | None
    """Root of the trained weights in the run's Hugging Face folder, where it was certified."""
    layout: LayoutRecord | None
    wall_seconds: dict[str, float]
    continuation: Continuation | None
    versions: dict[str, str]
    commit: str
    created: str
    missing: tuple[str, ...]
    """What a run may have and this one does not, in words."""


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Losses against optimizer steps; `train` averages each step's batch."""

    train: tuple[tuple[int, float], ...]
    heldout: tuple[tuple[int, float], ...]


def judge(low: float | None, high: float | None, *, better_is_higher: bool, p_value: float = 0.0) -> Verdict:
    """Improved or worse only where the interval leaves zero out and, if there is a test, the test agrees; else not shown."""
    if low is None or high is None or p_value > LARGEST_P_VALUE or low <= 0 <= high:
        return "not_shown"
    return "improved" if (low > 0) == better_is_higher else "got_worse"
