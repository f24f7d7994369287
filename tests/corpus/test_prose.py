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
