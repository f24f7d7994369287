import time

import pytest

from megatron_astro.corpus.prose import FORMULA, read_prose


def test_formulas_commands_code_and_citations_are_set_aside():
    text = "We find $x^2$ and\n\\begin{equation}\na &= b\n\\end{equation}\nin \\emph{all} cases [@key].\n```\ncode = 1\n```\nEnd \\(y\\)."
    prose = read_prose(text)
    assert prose.text.split() == ["We", "find", FORMULA, "and", FORMULA, "in", "all", "cases", ".", "End", FORMULA + "."]
    formulas = ("$x^2$", "\\begin{equation}\na &= b\n\\end{equation}", "\\(y\\)")
    assert prose.num_mathematics_characters == sum(map(len, formulas))


def test_an_unpaired_dollar_takes_no_paragraph_with_it():
    text = "It costs $5 here.\n\nA new paragraph, also $7."
    assert read_prose(text).text == text


def test_an_escaped_dollar_is_no_formula():
    assert FORMULA not in read_prose(r"from \$5 to \$7").text


def test_a_formula_that_was_never_closed_leaves_the_next_one_whole():
    assert read_prose("\\begin{equation} a word \\begin{equation} x \\end{equation} end").text.split()[-4:] == [
        "a",
        "word",
        FORMULA,
        "end",
    ]
    assert read_prose("\\[ a word \\[ x_[2] \\\\[5pt] y \\] end").text.split()[-4:] == ["a", "word", FORMULA, "end"]
    assert read_prose("\\begin{align*} \\begin{array}{c} \\frac{a}{b} \\end{array} \\end{align*} end").text == f"{FORMULA} end"


@pytest.mark.parametrize(
    "piece",
    [
        "\\begin{equation} ",
        "\\begin{align} \\begin{math} ",
        "\\[ ",
        "\\( ",
        "$$ a\n\n",
        "[@a ",
        "](a",
        "```\n",
        "\\[" + "\\\\" * 500 + "\n",
    ],
)
def test_what_is_never_closed_is_read_in_one_go(piece):
    """Each of these once took the square of the length, minutes at this one; now well below a second."""
    start = time.perf_counter()
    read_prose(piece * (600_000 // len(piece)))
    assert time.perf_counter() - start < 10
