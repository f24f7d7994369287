import re

import pytest

from megatron_astro.corpus.sections import RawSection, classify, join, select


def kinds(*headings):
    return [item.section.kind for item in classify([RawSection(heading=heading, text="t") for heading in ("First", *headings)])][
        1:
    ]


@pytest.mark.parametrize(
    ("kind", "headings"),
    [
        ("introduction", ["Introduction", "1. INTRODUCTION", "I Introduction", "Introduction and motivation", "Statement of need"]),
        ("conclusion", ["Conclusions", "6 Summary and conclusions", "Concluding remarks", "Outlook", "Summary",
                        "Discussion and Conclusions",
                        "Conclusion & Summary", "Summary and outlook"]),
        ("discussion", ["Discussion", "Results and discussion", "Discussion & Tips"]),
        ("body", ["Methods", "Observations", "Data", "Inclusions"]),
        ("appendix", ["Appendix", "Appendix A: tests", "Supplementary material"]),
    ],
)  # fmt: skip
def test_kinds_by_heading(kind, headings):
    assert kinds(*headings) == [kind] * len(headings)


def raw(heading, text="", level=1, part="section"):
    return RawSection(heading=heading, text=text, level=level, part=part)


PAPER = [
    raw("", "Authors", part="front"),
    raw("Introduction", "i"),
    raw("Background", "b", 2),
    raw("", "a", part="abstract"),
    raw("Methods"),
    raw("Conclusions of others", "m", 2),
    raw("Conclusions", "c"),
    raw("Acknowledgements", "thanks"),
    raw("More thanks", "and more", 2),
    raw("Tests", "t", part="appendix"),
]


@pytest.mark.parametrize(
    ("selection", "patterns", "texts"),
    [
        ("aic", (), ["a", "i", "b", "c"]),
        ("abstract", (), ["a"]),
        ("full", (), ["a", "i", "b", "", "m", "c"]),
        ("custom", ("^meth", "thanks", "test", "abstract"), ["a", "and more", "t"]),
    ],
)
def test_selections(selection, patterns, texts):
    chosen = select(classify(PAPER), selection, [re.compile(pattern, re.IGNORECASE) for pattern in patterns])
    assert [section.text for section in chosen] == texts


def test_text_before_the_first_heading_counts_where_there_is_no_other():
    assert [item.section.text for item in classify([raw("", "A letter.", part="front")])] == ["A letter."]


def test_a_first_summary_is_the_abstract_where_there_is_none():
    assert [item.section.kind for item in classify([raw("Summary", "s"), raw("Summary", "s")])] == ["abstract", "conclusion"]
    assert classify([raw("", "a", part="abstract"), raw("Summary", "s")])[1].section.kind == "conclusion"


def test_chapters_are_the_top_where_there_are_any():
    sections = [raw("Introduction", "i", 0), raw("Conclusions", "x", 1), raw("Stars", "s", 0), raw("Introduction", "y", 1)]
    assert [item.section.kind for item in classify(sections)] == ["introduction", "introduction", "body", "body"]


@pytest.mark.parametrize(
    "heading", ["References", "Data availability", "AUTHOR CONTRIBUTIONS", "Acknowledgment", "Software", "Funding"]
)
def test_back_matter(heading):
    assert classify([raw("A", "a"), raw(heading, "x")])[1].back_matter


def test_join():
    assert join(select(classify(PAPER), "aic", ())) == "a\n\nIntroduction\n\ni\n\nBackground\n\nb\n\nConclusions\n\nc"
