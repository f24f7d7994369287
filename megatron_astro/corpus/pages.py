"""Pages an optical reader gave up on: their markers are taken out, and a document that lacks too many pages is removed."""

import re
from collections.abc import Sequence

from megatron_astro.config.cleaning import PagesConfig
from megatron_astro.config.cleaning_rules import active_rules
from megatron_astro.corpus.outcome import Outcome, Removal, Repair, repair_document
from megatron_astro.corpus_records import Document

# Nougat writes [MISSING_PAGE_EMPTY:3], [MISSING_PAGE_FAIL:7], [MISSING_PAGE_POST], also with \_ in place of _.
_MARKER = re.compile(r"(?<![ \t])[ \t]*\[MISSING\\?_PAGE[^\]\n]{0,40}\][ \t]*\n?")


class PagesStep:
    """Rules page_markers and missing_pages."""

    name = "pages"

    def __init__(self, config: PagesConfig, skip: Sequence[str] = ()) -> None:
        self.config = config
        self.rules = active_rules(self.name, skip)

    def clean(self, document: Document) -> Outcome:
        """Count the markers, judge the document by their number, take them out."""
        num_missing = len(_MARKER.findall(document.text))
        if num_missing == 0:
            return Outcome(document=document)
        num_pages = len(_MARKER.sub("", document.text).split()) / self.config.words_per_page
        missing_fraction = num_missing / (num_missing + num_pages)
        if "missing_pages" in self.rules and missing_fraction > self.config.max_missing_fraction:
            evidence = f"{num_missing} missing pages, text for {num_pages:.1f}: {missing_fraction:.0%} missing"
            return Outcome(document=document, removal=Removal(rule="missing_pages", evidence=evidence))
        if "page_markers" not in self.rules:
            return Outcome(document=document)
        repaired, repairs = repair_document(document, take_out_markers)
        return Outcome(document=repaired, repairs=repairs)


def take_out_markers(text: str) -> tuple[str, list[Repair]]:
    """A text without page markers."""
    markers = _MARKER.findall(text)
    if not markers:
        return text, []
    return _MARKER.sub("", text), [
        Repair(rule="page_markers", times=len(markers), words=len(markers), evidence=markers[0].strip())
    ]
