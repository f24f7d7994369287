"""What evaluation writes and the report reads: scores of one model, and two models compared; stored as the records of `records` are."""

from dataclasses import dataclass

from megatron_astro.records import Letter, Method, Provenance


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a model did on one question: a score per option (log-probability, nats) and the letter with the highest."""

    question_id: str
    group: str
    topic: str
    source: str | None
    scores: tuple[float, float, float, float]
    predicted: Letter
    right: Letter
    correct: bool
    question: str = ""
    options: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    """Summed log-probability of each option's tokens (nats), not divided by length."""
    num_tokens: tuple[int, ...] = ()
    """Tokens of each option that were scored (answer_text)."""
    variant: str = ""
    """The written form of the predicted letter with the larger probability, such as " A" (letter)."""
    letter_mass: float | None = None
    """Probability the model gives to the four letters together, in all written forms (letter)."""


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The score of one group of questions; the standard error is clustered by source document, None with one document only."""

    group: str
    num_questions: int
    num_correct: int
    accuracy: float
    standard_error: float | None
    low: float
    """Lower end of the accuracy's 95 % interval."""
    high: float
    """Upper end of the accuracy's 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class ExamRecord:
    """One sitting: a model, a question set, a method, and every answer."""

    model: str
    weights_sha256: str
    question_set: str
    question_set_sha256: str
    method: Method
    method_version: str
    num_shots: int
    num_questions: int
    accuracy: float
    standard_error: float | None
    answers: tuple[Answer, ...]
    seconds: float
    provenance: Provenance
    remarks: tuple[str, ...] = ()
    by_group: tuple[GroupScore, ...] = ()
    shots_sha256: str = ""
    prompts_sha256: str = ""
    """SHA-256 over every text the model was shown: equal for two models that sat the same exam."""
    dtype: str = ""
    device: str = ""
    weights_root: str | None = None
    """Root of the weights, which certificates have too (checkpoint/digest.py); None for a model that is none of theirs."""


@dataclass(frozen=True, kw_only=True)
class GroupDifference:
    """One group's paired difference, after minus before, over the same questions; errors clustered by source document."""

    group: str
    num_questions: int
    num_clusters: int
    before: float
    after: float
    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    p_value: float
    """Exact two-sided sign-flip test over source documents (McNemar's exact test where each has one question)."""
    gained: tuple[str, ...]
    """Questions wrong before and right after."""
    lost: tuple[str, ...]
    """Questions right before and wrong after."""


@dataclass(frozen=True, kw_only=True)
class GroupContrast:
    """How much more one group's difference is than another's, such as taught questions against control questions."""

    group: str
    other: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ExamComparison:
    """Two sittings of the same exam compared question by question."""

    before_model: str
    after_model: str
    method: Method
    method_version: str
    question_set: str
    question_set_sha256: str
    confidence: float
    by_group: tuple[GroupDifference, ...]
    contrast: GroupContrast | None = None
    """The first group against the second, where there are exactly two."""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DocumentLoss:
    """Summed next-token loss of one document (nats) over its predicted tokens."""

    document_id: str
    loss_sum: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """Mean next-token loss (nats per token) of a model over documents."""

    model: str
    weights_sha256: str
    documents: str
    documents_sha256: str
    num_documents: int
    num_tokens: int
    loss: float
    perplexity: float
    by_document: tuple[DocumentLoss, ...]
    provenance: Provenance
    window: int = 0
    """Tokens the model sees at once; longer documents are cut into windows of this length."""
    bits_per_byte: float = 0.0
    """Loss in bits per byte of UTF-8 text, which models with different tokenizers share."""
    dtype: str = ""
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class LossComparison:
    """Two models' next-token loss on the same documents: after minus before (nats per token), clustered by document."""

    before_model: str
    after_model: str
    documents: str
    documents_sha256: str
    confidence: float
    num_documents: int
    num_tokens: int
    before: float
    after: float
    mean: float
    standard_error: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """One prompt continued greedily by both models; an illustration, not a measurement."""

    prompt: str
    before: str
    after: str
