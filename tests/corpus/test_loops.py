from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.corpus.loops import LoopLimits, TokenisedText, find_loops, without_loops

LIMITS = LoopLimits(max_word_run=3, max_phrase_words=22, long_phrase_words=6, short_phrase_copies=3)


def repaired(text, periods=range(1, 23)):
    tokens = TokenisedText(text)
    return without_loops(tokens, find_loops(tokens, LIMITS, periods))


def test_a_loop_is_said_once_and_the_rest_stays_as_it_was():
    before, after = "We see\n\n  it here: ", "\tand there.\n"
    for phrase in ("many stars", "of the bright red stars", " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrstuv")):
        assert repaired(before + " ".join([phrase] * 4) + after) == before + phrase + after


def test_copies_that_loop_depend_on_the_phrase_length():
    short, long = "bright stars", "we observe the bright red stars"
    assert repaired(f"{short} {short} x") == f"{short} {short} x"
    assert repaired(f"{short} {short} {short} x") == f"{short} x"
    assert repaired(f"{long} {long} x") == f"{long} x"
    assert repaired("very very very far") == "very very very far"
    assert repaired("very very very very far") == "very far"


def test_formulas_numbers_and_tables_may_repeat_themselves():
    for text in (
        "x + x + x + x + x",
        "0 & 0 & 0 & 0 & 0 & 0",
        "1 0 0 1 0 0 1 0 0",
        r"\alpha \beta \alpha \beta \alpha \beta",
        "- - - - -",
    ):
        assert repaired(text) == text


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma"]), max_size=60))
def test_a_text_without_loops_is_left_alone_and_words_only_go(words):
    text = " ".join(words)
    tokens = TokenisedText(text)
    loops = find_loops(tokens, LIMITS, range(1, 23))
    result = without_loops(tokens, loops)
    assert len(result.split()) == len(words) - sum(loop.end - loop.first for loop in loops)
    for loop in loops:  # each word that goes is the word one period before
        assert words[loop.first : loop.end] == words[loop.first - loop.period : loop.end - loop.period]
    if not loops:
        assert result == text
