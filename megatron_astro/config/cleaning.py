"""How a corpus is cleaned: one frozen section per step, each threshold with its unit; `cleaning_rules` names and explains the rules."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_astro.config.cleaning_rules import require_known_names
from megatron_astro.errors import ConfigError


def _require_at_least(section: str, lowest: float, **values: float) -> None:
    for name, value in values.items():
        if not lowest <= value < math.inf:  # NaN is not
            raise ConfigError(f"{section}.{name} is {value}; give {lowest:g} or more")


def _require_fraction(section: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{section}.{name} is {value}; give a fraction from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class PagesConfig:
    """Pages an optical reader gave up on, which it marks `[MISSING_PAGE...]`."""

    max_missing_fraction: float = 0.2
    """Largest accepted share of missing pages: markers against markers plus the pages that the text would fill."""
    words_per_page: int = 500
    """Words that count as a page."""

    def __post_init__(self) -> None:
        _require_fraction("pages", max_missing_fraction=self.max_missing_fraction)
        _require_at_least("pages", 1, words_per_page=self.words_per_page)


@dataclass(frozen=True, kw_only=True)
class RepetitionConfig:
    """Loops of an optical reader: repaired where they stand, and the document removed where too much had to be repaired."""

    max_character_run: int = 4
    """Longest run of one character that is left alone (digits, brackets, rules of dashes and `&` of tables always are)."""
    max_word_run: int = 3
    """Most times one word may stand in a row; a longer run becomes one word."""
    max_phrase_words: int = 22
    """Longest phrase looked for, in words."""
    long_phrase_words: int = 6
    """From this many words on, a phrase said twice in a row is a loop; shorter ones must be said `short_phrase_copies` times."""
    short_phrase_copies: int = 3
    """Copies in a row that make a loop of a short phrase."""
    min_sentence_words: int = 4
    """Shortest sentence dropped when it repeats the one before."""
    min_paragraph_words: int = 20
    """Shortest paragraph dropped when the document has it already."""
    max_repaired_fraction: float = 0.25
    """Largest accepted share of a document's words that repairs removed."""
    duplicate_ngram_words: int = 10
    """Words of the n-grams counted by the rule duplicate_ngrams."""
    max_duplicate_ngram_fraction: float = 0.3
    """Largest accepted share of n-grams that the document had before."""

    def __post_init__(self) -> None:
        _require_at_least(
            "repetition", 1, max_character_run=self.max_character_run, max_word_run=self.max_word_run,
            min_sentence_words=self.min_sentence_words, min_paragraph_words=self.min_paragraph_words,
            duplicate_ngram_words=self.duplicate_ngram_words,
        )  # fmt: skip
        _require_at_least("repetition", 2, short_phrase_copies=self.short_phrase_copies, max_phrase_words=self.max_phrase_words)
        _require_at_least("repetition", 2, long_phrase_words=self.long_phrase_words)
        _require_fraction(
            "repetition", max_repaired_fraction=self.max_repaired_fraction,
            max_duplicate_ngram_fraction=self.max_duplicate_ngram_fraction,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The languages to keep, judged by prose with mathematics left out."""

    keep: tuple[str, ...] = ("en",)
    """ISO 639-1 codes of the languages to keep."""
    min_probability: float = 0.5
    """Lowest accepted probability of those languages together."""
    sample_characters: int = 6000
    """Characters of prose the judgement rests on, taken from the start, the middle and the end."""

    def __post_init__(self) -> None:
        _require_fraction("language", min_probability=self.min_probability)
        _require_at_least("language", 100, sample_characters=self.sample_characters)
        if not self.keep:
            raise ConfigError("language.keep is empty; name at least one language, or leave the step out with --skip language")


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Statistics of the prose; mathematics, LaTeX commands and code fences are set aside first."""

    max_unreadable_fraction: float = 0.005
    """Largest accepted share of characters that are no text: replacement characters, control characters, glyph names, mojibake."""
    max_single_letter_fraction: float = 0.35
    """Largest accepted share of one-letter words (a scan that spaced its letters)."""
    min_mean_word_length: float = 3.0
    """Lowest accepted mean length of words, in letters."""
    max_mean_word_length: float = 9.0
    """Highest accepted mean length of words, in letters."""
    max_symbol_fraction: float = 0.25
    """Largest accepted share of prose characters that are neither letters, digits nor white space."""
    max_digit_fraction: float = 0.3
    """Largest accepted share of digits among letters and digits."""
    min_alphabetic_fraction: float = 0.6
    """Lowest accepted share of words with a letter in them; a formula counts as one."""
    min_stop_words: int = 3
    """Fewest different ones of the commonest English words; asked of documents of 100 words and more where English is kept."""
    max_list_line_fraction: float = 0.9
    """Largest accepted share of lines that start with a list mark."""
    max_ellipsis_line_fraction: float = 0.3
    """Largest accepted share of lines that end with an ellipsis."""
    max_mathematics_fraction: float = 0.8
    """Largest accepted share of characters inside formulas."""

    def __post_init__(self) -> None:
        _require_fraction(
            "quality", max_unreadable_fraction=self.max_unreadable_fraction, max_symbol_fraction=self.max_symbol_fraction,
            max_single_letter_fraction=self.max_single_letter_fraction, max_digit_fraction=self.max_digit_fraction,
            min_alphabetic_fraction=self.min_alphabetic_fraction, max_list_line_fraction=self.max_list_line_fraction,
            max_ellipsis_line_fraction=self.max_ellipsis_line_fraction, max_mathematics_fraction=self.max_mathematics_fraction,
        )  # fmt: skip
        _require_at_least("quality", 0, min_mean_word_length=self.min_mean_word_length, min_stop_words=self.min_stop_words)
        _require_at_least("quality", self.min_mean_word_length, max_mean_word_length=self.max_mean_word_length)


@dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """Bounds of a document's length."""

    min_words: int = 50
    """Fewest words of a document."""
    max_words: int = 500_000
    """Most words of a document."""

    def __post_init__(self) -> None:
        _require_at_least("length", 0, min_words=self.min_words)
        _require_at_least("length", self.min_words, max_words=self.max_words)


@dataclass(frozen=True, kw_only=True)
class DecontaminationConfig:
    """How exam questions are looked for in documents: by word n-grams of the stem, then by the answer nearby."""

    action: Literal["document", "passage"] = "document"
    """What a hit removes: the whole document, or only the paragraphs the question stands in."""
    ngram_words: int = 4
    """Words of the n-grams by which a stem is found (a shorter stem is found whole)."""
    max_ngram_questions: int = 3
    """An n-gram that more questions share is boilerplate ("which of the following") and counts for none of them."""
    min_stem_words: int = 6
    """Shortest stem that is a hit with its right option alone; a shorter one needs wrong options nearby as well."""
    min_stem_fraction: float = 0.7
    """Least share of a stem's telling words that must stand in one place of the document."""
    answer_distance_words: int = 60
    """How far from the stem the options are looked for, in words; the options' own length is added."""
    min_answer_fraction: float = 0.8
    """Least share of an option's words that must stand there (all of them, in order, for up to three words)."""
    min_wrong_options: int = 2
    """Wrong options that must stand near a stem shorter than min_stem_words."""
    long_stem_words: int = 20
    """From this length on, a stem is a hit without any option, if min_long_stem_fraction of it is there."""
    min_long_stem_fraction: float = 0.9
    """Least share of a long stem's telling words."""

    def __post_init__(self) -> None:
        _require_at_least(
            "decontamination", 1, ngram_words=self.ngram_words, max_ngram_questions=self.max_ngram_questions,
            min_stem_words=self.min_stem_words, long_stem_words=self.long_stem_words,
        )  # fmt: skip
        _require_at_least(
            "decontamination", 0, answer_distance_words=self.answer_distance_words, min_wrong_options=self.min_wrong_options
        )
        _require_fraction(
            "decontamination", min_stem_fraction=self.min_stem_fraction, min_answer_fraction=self.min_answer_fraction,
            min_long_stem_fraction=self.min_long_stem_fraction,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """Exact and near duplicates, found by a hash of the folded words and by MinHash over word shingles."""

    shingle_words: int = 5
    """Words of a shingle."""
    bands: int = 32
    """Bands of the MinHash signature; two documents are compared if they agree in one whole band."""
    rows: int = 4
    """Hashes in a band. 32 bands of 4: half of all pairs of similarity 0.41 are compared, 99.9 % of those of 0.67."""
    min_similarity: float = 0.7
    """Lowest Jaccard similarity of the shingles, as the signatures estimate it, at which one of two documents is removed."""
    min_containment: float = 0.7
    """Share of a document's shingles that stand in one longer document from which on it is removed."""
    containment_sampling: int = 8
    """One of so many shingles is kept to tell containment by."""
    seed: int = 1
    """Seed of the MinHash permutations."""

    def __post_init__(self) -> None:
        _require_at_least("duplicates", 1, shingle_words=self.shingle_words, bands=self.bands, rows=self.rows)
        _require_at_least("duplicates", 0, seed=self.seed)
        _require_at_least("duplicates", 1, containment_sampling=self.containment_sampling)
        _require_fraction("duplicates", min_similarity=self.min_similarity, min_containment=self.min_containment)


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What the jobs of `--executor slurm` ask for; also memory and cores of `--executor ray`."""

    partition: str = ""
    """Partition to submit to; needed."""
    hours: int = 12
    """Time limit of a task, in hours."""
    memory_gigabytes: int = 4
    """Memory of a task, in GiB."""
    max_array_size: int = 1001
    """Most tasks of one job array that the cluster allows."""
    tasks_per_job: int = 1
    """Tasks that one job of an array does one after the other."""
    setup: str = ""
    """Shell command that makes Python with this package available on a node, such as `source .venv/bin/activate`."""
    dry_run: bool = False
    """Only write the job scripts and the script that submits them."""

    def __post_init__(self) -> None:
        _require_at_least(
            "slurm", 1, hours=self.hours, memory_gigabytes=self.memory_gigabytes, max_array_size=self.max_array_size,
            tasks_per_job=self.tasks_per_job,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CleaningRules:
    """Everything that decides what the clean corpus holds, but for the files: the part that `resolved.toml` keeps."""

    skip: tuple[str, ...] = ()
    """Steps and rules to leave out, by name."""
    replay_fraction: float = 0.0
    """Share of all words of the output that general text (`--replay`) makes up."""
    replay_seed: int = 1234
    """Decides which general documents are taken."""
    pages: PagesConfig = field(default_factory=PagesConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    length: LengthConfig = field(default_factory=LengthConfig)
    decontamination: DecontaminationConfig = field(default_factory=DecontaminationConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)

    def __post_init__(self) -> None:
        require_known_names(self.skip)
        if not 0 <= self.replay_fraction < 1:
            raise ConfigError(f"replay_fraction is {self.replay_fraction}; give a fraction from 0 up to, not including, 1")


@dataclass(frozen=True, kw_only=True)
class CleaningFiles:
    """What a cleaning reads and where it writes."""

    documents: tuple[Path, ...]
    output: Path
    exams: tuple[Path, ...] = ()
    exam_papers: Path | None = None
    replay: tuple[Path, ...] = ()
