import pytest

from megatron_astro.corpus.exam_index import ExamIndex, words_up_to_option
from megatron_astro.corpus.words import folded_words
from megatron_astro.records import Question

OPTIONS = ("Its mass", "Its age", "Its colour on a clear night", "Its name")


def question(text, number=1, options=OPTIONS):
    return Question(id=f"q{number}", question=text, options=options, answer="A")


def test_a_stem_is_found_where_it_stands_best():
    index = ExamIndex([question("Which property of a star decides how it will end?")], ngram_words=4, max_ngram_questions=3)
    text = folded_words(
        "a star decides how to move. " + "filler " * 50 + "Which property of a star decides how it will end? Mass."
    )
    (match,) = index.find_stems(text, 0.7)
    assert match.fraction == 1.0
    assert text[match.first : match.end] == folded_words("Which property of a star decides how it will end?")


def test_every_place_is_found_though_they_touch():
    stem = "Which property of a star decides how it will end?"
    index = ExamIndex([question(stem)], ngram_words=4, max_ngram_questions=3)
    length = len(folded_words(stem))
    part = "property of a star decides how it will"  # 8 of 10 words
    places = [
        (match.first, match.end, match.fraction) for match in index.find_stems(folded_words(f"{stem} {stem} {part} {stem}"), 0.7)
    ]
    assert places[:2] == [(0, length, 1.0), (length, 2 * length, 1.0)]
    assert places[-1] == (2 * length + 8, 3 * length + 8, 1.0)


def test_pieces_far_apart_are_no_stem():
    index = ExamIndex([question("Which property of a star decides how it will end?")], ngram_words=4, max_ngram_questions=3)
    text = "which property of a star " + "filler " * 50 + "star decides how it will end"
    assert list(index.find_stems(folded_words(text), 0.7)) == []


def test_what_many_questions_share_tells_nothing():
    stems = [f"Which of the following is true of {name} and its many moons?" for name in ("Mars", "Jupiter", "Saturn", "Neptune")]
    index = ExamIndex([question(stem, number) for number, stem in enumerate(stems)], ngram_words=4, max_ngram_questions=3)
    text = folded_words("Which of the following is true of Venus and its many moons?")
    assert list(index.find_stems(text, 0.3)) == []
    assert [match.question.id for match in index.find_stems(folded_words(stems[2]), 1.0)] == ["q2"]


def test_a_stem_without_telling_words_is_looked_for_with_its_options():
    questions = [
        question(
            "Which of the following is true?", number, (f"Mars has {number} large moons", f"Venus has {number} rings", "x y", "z")
        )
        for number in range(5)
    ]
    index = ExamIndex(questions, ngram_words=4, max_ngram_questions=3)
    assert all(indexed.with_options for indexed in index.questions)
    assert list(index.find_stems(folded_words("Which of the following is true? Nothing here."), 0.5)) == []
    text = folded_words("Which of the following is true? A. Mars has 3 large moons B. Venus has 3 rings C. x y D. z")
    assert "q3" in [match.question.id for match in index.find_stems(text, 0.5)]


@pytest.mark.parametrize(
    "text",
    [
        "The Sun is hot, cold, old, new",
        "The Sun is\nA. hot\nB. cold\nC. old\nD. new",
        "The Sun is (1) hot (2) cold (3) old (4) new",
    ],
)
def test_short_options_are_found_behind_their_letters(text):
    index = ExamIndex([question("The Sun is", 1, ("hot", "cold", "old", "new"))], ngram_words=4, max_ngram_questions=3)
    (match,) = index.find_stems(folded_words(f"Well, {text} they say"), 0.7)
    assert (match.first, match.fraction) == (1, 1.0)
    assert list(index.find_stems(folded_words("The Sun is a hot star, old and never cold"), 0.7)) == []


def test_short_options_stand_word_for_word_and_long_ones_mostly():
    ignored = frozenset(["the", "of", "from"])
    assert words_up_to_option(("its", "mass"), ["by", "its", "mass", "its", "mass"], 0.8, ignored) == 3
    assert words_up_to_option(("its", "mass"), ["mass", "its"], 0.8, ignored) is None
    long = ("the", "colour", "of", "light", "from", "hot", "young", "stars")
    assert words_up_to_option(long, ["a", "light", "hot", "young", "stars", "end"], 0.8, ignored) == 5
    assert words_up_to_option(long, ["the", "of", "from", "light", "hot", "young"], 0.8, ignored) is None
    assert words_up_to_option((), ["a"], 0.8, ignored) is None
