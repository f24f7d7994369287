import pytest

from megatron_astro.config.cleaning import RepetitionConfig
from megatron_astro.corpus.repetition import RepetitionStep, characters_in_runs, duplicate_ngram_fraction
from megatron_astro.corpus_records import Document, Section


def clean(text, *, skip=(), sections=(), **config):
    return RepetitionStep(RepetitionConfig(**config), skip).clean(Document(id="a", text=text, sections=sections))


@pytest.mark.parametrize(
    ("rule", "broken", "mended"),
    [
        ("character_runs", "It was veryyyyyyyyy far......", "It was veryyyy far...."),
        ("spacing_commands", r"a \quad\quad \quad b \,\,\, c \! \! d \qquad\qquad e", r"a \quad b \, c \! d \qquad e"),
        ("word_runs", "far far far far away", "far away"),
        ("phrase_loops", "the star is the star is the star is bright", "the star is bright"),
        ("duplicate_sentences", "It is a star. It is a star. It moves.", "It is a star. It moves."),
    ],
)
def test_each_repair_does_its_own_and_can_be_switched_off(make_text, rule, broken, mended):
    around = make_text(1)
    outcome = clean(f"{around}\n\n{broken}\n\n{around[::-1]}")
    assert outcome.removal is None
    assert outcome.document.text == f"{around}\n\n{mended}\n\n{around[::-1]}"
    assert [repair.rule for repair in outcome.repairs] == [rule]
    assert outcome.repairs[0].words == len(broken.split()) - len(mended.split())
    assert clean(f"{around}\n\n{broken}", skip=(rule,)).document.text == f"{around}\n\n{broken}"
    assert clean(f"{around}\n\n{broken}", skip=("repetition",)).repairs == ()


def test_a_paragraph_said_before_goes_with_its_gap(make_text):
    first, second, third = (make_text(seed, 30).replace("\n\n", " ") for seed in (1, 2, 3))
    outcome = clean(f"{first}\n\n{second}\n\n{first}\n\n{third}\n", max_repaired_fraction=1.0)
    assert outcome.document.text == f"{first}\n\n{second}\n\n{third}\n"
    assert outcome.document.num_words == 90
    assert clean(f"{first}\n\n{second}\n\n{first}", max_repaired_fraction=1.0).document.text == f"{first}\n\n{second}"


@pytest.mark.parametrize(
    "text", ["1000000 km", "{{{{{{a}}}}}}", "| ------ | ====== |", "____________", "&&&&&& \\\\\\\\\\\\", "a      b"]
)
def test_digits_brackets_rules_and_spaces_keep_their_runs(text):
    assert clean(text).document.text == text


def test_sections_are_repaired_like_the_text():
    loop = "the star is the star is the star is bright"
    section = Section(kind="abstract", heading="Abstract", text=loop)
    outcome = clean(loop, sections=(section,), max_repaired_fraction=1.0)
    assert outcome.document.sections[0].text == outcome.document.text == "the star is bright"


def test_a_document_of_loops_goes(make_text):
    outcome = clean(make_text(1, 100) + " the end is near now" * 30)
    assert outcome.removal.rule == "repaired_share"
    assert "60% of 250 words" not in outcome.removal.evidence  # one copy stays: 145 of 250
    assert "58% of 250 words" in outcome.removal.evidence


def test_a_document_that_repeats_itself_at_a_distance_goes(make_text):
    text = make_text(1, 200).replace("\n\n", " ")
    assert duplicate_ngram_fraction(text, 10) < 0.01
    varied = f"{text} First. {text} Second."
    outcome = clean(varied)
    assert (outcome.removal.rule, outcome.document.text) == ("duplicate_ngrams", varied)
    assert clean(varied, skip=("duplicate_ngrams",)).removal is None


def test_runs_of_characters_are_seen():
    assert characters_in_runs("aaab bbbb\n\n\n\n", 4) == {"b", "\n"}
    assert characters_in_runs("ab", 3) == set()
    assert characters_in_runs("", 5) == set()


def test_real_papers_are_hardly_touched(papers):
    step = RepetitionStep(RepetitionConfig())
    outcomes = {name: step.clean(Document(id=name, text=text)) for name, text in papers.items()}
    assert [name for name, outcome in outcomes.items() if outcome.removal] == []
    words = sum(len(text.split()) for text in papers.values())
    gone = sum(repair.words for outcome in outcomes.values() for repair in outcome.repairs)
    assert gone < 1e-4 * words
