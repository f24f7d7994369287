import time

import pytest

from megatron_astro.config.cleaning import PagesConfig
from megatron_astro.corpus.pages import PagesStep
from megatron_astro.corpus_records import Document


@pytest.mark.parametrize(
    "marker", ["[MISSING_PAGE_EMPTY:3]", "[MISSING_PAGE_FAIL:12]", "[MISSING_PAGE_POST]", r"[MISSING\_PAGE\_FAIL:1]"]
)
def test_markers_go_and_the_document_stays(make_text, marker):
    text = make_text(1, 3000)
    outcome = PagesStep(PagesConfig()).clean(Document(id="a", text=f"{text}\n{marker}\nend"))
    assert (outcome.removal, outcome.document.text) == (None, f"{text}\nend")
    assert (outcome.repairs[0].rule, outcome.repairs[0].evidence) == ("page_markers", marker)


def test_too_many_missing_pages_remove_the_document(make_text):
    text = make_text(1, 1000) + "\n[MISSING_PAGE_FAIL:1]" * 2
    outcome = PagesStep(PagesConfig()).clean(Document(id="a", text=text))
    assert outcome.removal.rule == "missing_pages"
    assert outcome.removal.evidence == "2 missing pages, text for 2.0: 50% missing"
    assert PagesStep(PagesConfig(max_missing_fraction=0.5)).clean(Document(id="a", text=text)).removal is None
    kept = PagesStep(PagesConfig(), skip=("missing_pages", "page_markers")).clean(Document(id="a", text=text))
    assert (kept.removal, kept.document.text) == (None, text)


def test_blanks_without_a_marker_are_read_in_one_go():
    """Once the square of the length, minutes at this one; now well below a second."""
    start = time.perf_counter()
    assert PagesStep(PagesConfig()).clean(Document(id="a", text="\t " * 300_000)).repairs == ()
    assert time.perf_counter() - start < 10
