import subprocess
import sys
import time

import numpy as np
import pytest

from megatron_astro.corpus.words import WordCodes, folded_words, ngram_hashes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The SUN's mass: 1.4 M_sun!", "the sun s mass 1 4 m sun"),
        (r"$10^{-3}\,M_\odot$ of H$_2$O", "10 3 m of h 2 o"),
        ("H2O", "h 2 o"),
        (r"\emph{bright} \textbf{stars} at $z \sim 2$", "bright stars at z 2"),
        (r"$\alpha$, $\Delta\lambda$, \varepsilon", "alpha delta lambda epsilon"),
        ("\u03b1, \u0394\u03bb, \u00b5m \u03c2", "alpha delta lambda mu m sigma"),
        (r"\mutual \nubar", ""),  # commands that only start like Greek letters
        ("obser-\nvations and obser\u00advations", "observations and observations"),
        ("obser\u00ad\nvations of\ufeff a st\u2060ar", "observations of a star"),
        ("a 5 \u2103 warm \U0001d412tar, 5 \u00b0C", "a 5 c warm star 5 c"),
        ("Caf\u00e9 \u201cG\u00f6del\u201d \ufb01eld x\u00b2", "cafe godel field x 2"),
        ("\u0417\u0432\u0451\u0437\u0434\u044b snake_case", "\u0437\u0432\u0435\u0437\u0434\u044b snake case"),
        ("", ""),
    ],
)
def test_words_are_told_apart_by_letters_and_digits_only(text, words):
    assert folded_words(text) == words.split()


def test_codes_are_the_same_in_every_process():
    program = "from megatron_astro.corpus.words import *; print(ngram_hashes(WordCodes().encode(['star', 'light', 'star']), 2).tolist())"
    outputs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout for _ in range(2)
    }
    here = ngram_hashes(WordCodes().encode(["star", "light", "star"]), 2).tolist()
    assert outputs == {f"{here}\n"}


def test_ngrams_are_equal_where_their_words_are():
    codes = WordCodes().encode(["a", "b", "c", "a", "b", "c", "d"])
    hashes = ngram_hashes(codes, 3)
    assert len(hashes) == 5
    assert hashes[0] == hashes[3]
    assert len(np.unique(hashes)) == 4
    assert ngram_hashes(codes, 7).shape == (1,)
    assert ngram_hashes(codes, 8).shape == (0,)
    assert ngram_hashes(WordCodes().encode(["b", "a"]), 2)[0] != ngram_hashes(WordCodes().encode(["a", "b"]), 2)[0]


def test_a_broken_word_before_many_empty_lines_is_read_in_one_go():
    """Once the square of the length, minutes at this one; now well below a second."""
    start = time.perf_counter()
    assert folded_words("mag-" + "\n" * 300_000 + "!") == ["mag"]
    assert folded_words("mag- \n\n" + "\n " * 300_000 + "netic") == ["magnetic"]
    assert time.perf_counter() - start < 10
