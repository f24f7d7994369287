import time

import pytest
from papers_expected import NEEDS_PAPERS, PAPERS

from megatron_astro.corpus.markdown import read_markdown_paper, read_plain_text
from megatron_astro.corpus.sections import classify, join, select
from megatron_astro.errors import DataError

JOSS = """---
title: 'Gala: *dynamics*'
date: 13 August 2019
tags: [x]
---
# Summary
Forces [@a; @b:1]  and
work by @c.1, see [here](http://x) ![Fig](f.png).<!-- gone -->

```python
# no heading
```

| a | b |

# References
"""


def test_joss():
    paper = read_markdown_paper(JOSS.encode())
    assert (paper.title, paper.date) == ("Gala: dynamics", "2019-08-13")
    assert [(s.heading, s.text) for s in paper.sections] == [
        ("Summary", "Forces (a; b:1) and work by c.1, see here ."),
        ("References", ""),
    ]
    assert read_markdown_paper(JOSS.encode(), "drop").sections[0].text == "Forces and work by , see here ."
    assert [section.kind for section in select(classify(paper.sections), "aic", ())] == ["abstract"]


def test_nougat():
    source = """# A Title

A. Author

###### Abstract

We see \\(x\\) and \\(y.

## 1 Introduction

Text \\[z\\] [MISSING_PAGE_EMPTY:2] more \\) end.

[MISSING_PAGE_FAIL:3]

\\begin{table}
\\begin{tabular}{c} 1 \\end{tabular}
\\end{table}
"""
    paper = read_markdown_paper(source.encode())
    assert paper.title == "A Title"
    assert paper.notes == ("2 pages are marked as missing",)
    text = join(select(classify(paper.sections), "aic", ()))
    assert text == "We see $x$ and y.\n\n1 Introduction\n\nText $$z$$ more end."


@pytest.mark.parametrize(
    ("value", "date"), [("2020-01-02", "2020-01-02"), ("August 2019", "2019-08"), ("soon", ""), ("3 Feb 2018", "2018-02-03")]
)
def test_dates(value, date):
    assert read_markdown_paper(f"---\ndate: {value}\n---\nx".encode()).date == date


def test_a_broken_header_is_named_and_a_latin_text_is_read():
    with pytest.raises(DataError, match="the YAML header is not valid"):
        read_markdown_paper(b"---\ntitle: [a\n---\nx")
    assert read_plain_text("caf\u00e9".encode("latin-1")).sections[0].text == "caf\u00e9"


@pytest.mark.skipif(not PAPERS.is_dir(), reason=NEEDS_PAPERS)
def test_real_joss_papers():
    papers = {path.parent.name: read_markdown_paper(path.read_bytes()) for path in PAPERS.glob("joss-*/paper.md")}
    assert len(papers) == 16
    for name, paper in papers.items():
        chosen = select(classify(paper.sections), "aic", ())
        assert paper.title, name
        assert sum(len(section.text) for section in chosen) > 500, name
        assert not any("Acknowledg" in section.heading for section in chosen), name


def test_comments_and_tables_are_left_out_but_for_those_without_an_end():
    table = "\\begin{table}x\\begin{tabular}{c}1\\end{tabular}y\\end{table}"
    text = f"a <!-- no --> b {table} c \\begin{{table*}} d <!-- e"
    assert read_markdown_paper(text.encode()).sections[0].text == "a b c \\begin{table*} d <!-- e"


@pytest.mark.parametrize("mark", ["<!-- a ", r"\begin{table} a "])
def test_marks_without_an_end_take_no_longer_than_their_number(mark):
    started_at = time.process_time()
    read_markdown_paper((mark * 100_000).encode())  # each searched to the end would take minutes
    assert time.process_time() - started_at < 10
