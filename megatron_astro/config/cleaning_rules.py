"""The names of the cleaning steps and their rules, in the order they are applied, each with the sentence that reports print."""

from collections.abc import Sequence

from megatron_astro.errors import ConfigError

#: Step -> rule -> what it does. A step's name switches off all its rules.
CLEANING_RULES: dict[str, dict[str, str]] = {
    "pages": {
        "page_markers": "repairs: [MISSING_PAGE...] markers go",
        "missing_pages": "removes documents with too many missing pages",
    },
    "repetition": {
        "character_runs": "repairs: long runs of one character are shortened",
        "spacing_commands": r"repairs: repeated \quad, \qquad, \, and \! become one",
        "word_runs": "repairs: a word said many times in a row becomes one",
        "phrase_loops": "repairs: phrases said again and again in a row become one",
        "duplicate_sentences": "repairs: a sentence that repeats the one before goes",
        "duplicate_paragraphs": "repairs: a paragraph that the document has already goes",
        "repaired_share": "removes documents of which repairs took too much",
        "duplicate_ngrams": "removes documents that keep saying the same words",
    },
    "length": {"too_short": "removes documents below min_words", "too_long": "removes documents above max_words"},
    "language": {"other_language": "removes documents in other languages"},
    "quality": {
        "unreadable_characters": "removes documents with broken characters",
        "single_letters": "removes documents with spaced letters",
        "word_length": "removes documents whose words are too short or too long on average",
        "symbols": "removes documents with too many symbols",
        "digits": "removes documents with too many digits",
        "alphabetic_words": "removes documents with too few real words",
        "stop_words": "removes documents without the commonest English words",
        "list_lines": "removes documents that are lists",
        "ellipsis_lines": "removes documents whose lines trail off",
        "mathematics_share": "removes documents that are nearly all formulas",
    },
    "decontamination": {
        "stem_and_answer": "an exam question's stem with its right option nearby",
        "short_stem_and_options": "an exam question's short stem with right and wrong options nearby",
        "long_stem": "an exam question's long stem",
        "source_paper": "removes the papers that exam questions were made from, and their duplicates",
    },
    "duplicates": {
        "same_paper": "removes other versions of a paper",
        "exact": "removes documents of the same words",
        "near": "removes documents of nearly the same words",
        "contained": "removes documents that stand nearly whole in a longer one",
    },
}


def require_known_names(names: Sequence[str]) -> None:
    """Refuse names that are neither a step nor a rule."""
    known = set(CLEANING_RULES) | {rule for rules in CLEANING_RULES.values() for rule in rules}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"skip names {unknown[0]!r}, which is no step and no rule; choose from {', '.join(sorted(known))}")


def active_rules(step: str, skip: Sequence[str]) -> frozenset[str]:
    """The rules of a step that are switched on."""
    return frozenset() if step in skip else frozenset(rule for rule in CLEANING_RULES[step] if rule not in skip)
