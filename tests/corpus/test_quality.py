import pytest

from megatron_astro.config.cleaning import LengthConfig, QualityConfig
from megatron_astro.corpus.quality import LengthStep, QualityStep
from megatron_astro.corpus_records import Document

BROKEN = {
    "unreadable_characters": lambda text: text.replace("a", "\ufffd"),
    "single_letters": lambda text: " ".join(" ".join(text.replace(" ", "")[:400])) + text[:100],
    "symbols": lambda text: text.replace(" ", " #@! "),
    "digits": lambda text: text.replace(" ", " 12345 "),
    "list_lines": lambda text: "\n".join("- " + line for line in text.replace(". ", ".\n").split("\n") if line),
    "ellipsis_lines": lambda text: text.replace(".", "...\n"),
    "mathematics_share": lambda text: text + "\n\n$$x + y = z ^ 2 + a + b + c + d$$" * 900,
    "word_length": lambda text: text.replace(" ", ""),
    "alphabetic_words": lambda text: text.replace(" ", " 1 2 "),
    "stop_words": lambda text: "galaxies clusters telescopes spectra " * (50 + len(text)),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_its_own_and_can_be_switched_off(make_text, rule):
    text = make_text(1, 300)
    step = QualityStep(QualityConfig(), english=True)
    assert step.clean(Document(id="a", text=text)).removal is None
    broken = Document(id="a", text=BROKEN[rule](text))
    others = tuple(other for other in BROKEN if other != rule)
    assert QualityStep(QualityConfig(), english=True, skip=others).clean(broken).removal.rule == rule
    assert QualityStep(QualityConfig(), english=True, skip=tuple(BROKEN)).clean(broken).removal is None
    assert step.clean(broken).removal is not None


def test_stop_words_are_asked_of_english_only():
    document = Document(id="a", text=BROKEN["stop_words"](""))
    assert QualityStep(QualityConfig(), english=False).clean(document).removal is None


def test_a_paper_full_of_formulas_passes(make_text):
    formula = (
        "\n\\begin{align}\n\\nabla \\cdot \\vec{E} &= \\frac{\\rho}{\\epsilon_0} \\\\ \\oint B_{ij}^{2} &= 0\n\\end{align}\n"
    )
    text = formula.join(sentence + " where $v_{\\rm esc} = 10^{3}$." for sentence in make_text(1, 300).split(". "))
    assert QualityStep(QualityConfig(), english=True).clean(Document(id="a", text=text)).removal is None


def test_real_papers_and_a_textbook_pass(papers, textbook):
    step = QualityStep(QualityConfig(), english=True)
    texts = papers | textbook
    assert {name: step.clean(Document(id=name, text=text)).removal for name, text in texts.items()} == dict.fromkeys(texts)


@pytest.mark.parametrize(("num_words", "rule"), [(49, "too_short"), (50, None), (300, None), (301, "too_long")])
def test_length_has_bounds(make_text, num_words, rule):
    step = LengthStep(LengthConfig(min_words=50, max_words=300))
    document = Document(id="a", text=make_text(1, num_words))
    removal = step.clean(document).removal
    assert (removal.rule if removal else None) == rule
    assert LengthStep(LengthConfig(min_words=50, max_words=300), skip=("length",)).clean(document).removal is None
