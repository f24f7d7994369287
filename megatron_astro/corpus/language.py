"""The language of a document, by py3langid's model over byte n-grams, which comes with the package: nothing is downloaded."""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from megatron_astro.config.cleaning import LanguageConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.outcome import Outcome, Removal, shorten
from megatron_astro.corpus.prose import FORMULA, read_prose
from megatron_astro.corpus_records import Document


class LanguageIdentifier(Protocol):
    """What is used of py3langid."""

    def rank(self, text: str) -> list[tuple[str, float]]:
        """Languages with their probabilities, likeliest first."""
        ...


class LanguageStep:
    """Rule other_language."""

    name = "language"

    def __init__(self, config: LanguageConfig, skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip)

    def clean(self, document: Document) -> Outcome:
        """Remove the document if its prose is likely in none of the languages to keep."""
        sample = sample_prose(document.text, self.config.sample_characters)
        if "other_language" not in self.rules or not any(map(str.isalpha, sample)):
            return Outcome(document=document)
        ranked = load_identifier().rank(sample)
        probability = sum(float(share) for language, share in ranked if language in self.config.keep)
        if probability >= self.config.min_probability:
            return Outcome(document=document)
        evidence = f"{ranked[0][0]} with probability {float(ranked[0][1]):.2f}; starts: {document.text[:150]}"
        return Outcome(document=document, removal=Removal(rule="other_language", evidence=shorten(evidence)))


@cache  # 0.7 CPU-seconds: once a process, not once a task
def load_identifier() -> LanguageIdentifier:
    """py3langid's identifier with probabilities that sum to one."""
    from py3langid.langid import MODEL_FILE
    from py3langid.langid import LanguageIdentifier as Py3langid

    identifier: LanguageIdentifier = Py3langid.from_model_file(MODEL_FILE, norm_probs=True)
    return identifier


def sample_prose(text: str, num_characters: int) -> str:
    """Prose from the start, the middle and the end of a text, `num_characters` in all, without formulas."""
    third = num_characters // 3
    if len(text) > 4 * num_characters:  # formulas thin the parts out: take twice the length, then cut
        middle = len(text) // 2 - third
        parts = [text[: 2 * third], text[middle : middle + 2 * third], text[-2 * third :]]
    else:
        parts = [text]
    prose = [" ".join(read_prose(part).text.replace(FORMULA, " ").split()) for part in parts]
    if len(prose) == 1:
        return prose[0][:num_characters]
    return " ".join(part[:third] for part in prose)
