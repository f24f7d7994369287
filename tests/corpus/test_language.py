import pytest

from megatron_astro.config.cleaning import LanguageConfig
from megatron_astro.corpus.language import LanguageStep, sample_prose
from megatron_astro.corpus_records import Document

OTHERS = {
    "fr": "Nous présentons une étude des étoiles variables dans les amas globulaires à partir des observations du télescope spatial.",
    "de": "Wir präsentieren eine Untersuchung der veränderlichen Sterne in Kugelsternhaufen mit Beobachtungen des Weltraumteleskops.",
    "es": "Presentamos un estudio de estrellas variables en cúmulos globulares a partir de observaciones del telescopio espacial.",
    "ru": "Мы представляем исследование переменных звёзд в шаровых скоплениях по наблюдениям космического телескопа.",
    "zh": "我们利用空间望远镜的观测资料研究了球状星团中的变星。结果表明其金属丰度较低。",
}


@pytest.fixture(scope="module")
def step():
    return LanguageStep(LanguageConfig())


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_go_and_are_named(step, language):
    removal = step.clean(Document(id="a", text=OTHERS[language])).removal
    assert removal.rule == "other_language"
    assert removal.evidence.startswith(f"{language} with probability")
    assert LanguageStep(LanguageConfig(keep=("en", language))).clean(Document(id="a", text=OTHERS[language])).removal is None


def test_formulas_do_not_hide_the_language(step):
    english = (
        "We study variable stars with the space telescope and find that they are metal poor $"
        + "x_{i} + " * 100
        + "1$ in all of the fields."
    )
    assert step.clean(Document(id="a", text=english)).removal is None
    assert step.clean(Document(id="a", text=OTHERS["fr"] + " $" + "x_{i} + " * 100 + "1$")).removal is not None


def test_a_text_without_letters_is_not_judged(step):
    assert step.clean(Document(id="a", text="1 2 3")).removal is None


def test_the_sample_takes_start_middle_and_end():
    text = "a " * 5000 + "b " * 5000 + "c " * 5000
    sample = sample_prose(text, 300)
    assert [sample.count(letter) for letter in "abc"] == [50, 50, 50]


def test_real_papers_are_english(step, papers):
    assert [name for name, text in papers.items() if step.clean(Document(id=name, text=text)).removal] == []
