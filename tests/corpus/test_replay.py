import pytest

from megatron_astro.corpus.replay import ReplayCandidate, choose_replay, first_words, replay_words
from megatron_astro.corpus_records import Document, Section
from megatron_astro.errors import DataError

CANDIDATES = [ReplayCandidate(document=number, id=f"web-{number}", num_words=100 + number) for number in range(20)]


@pytest.mark.parametrize(("fraction", "words"), [(0.0, 0), (0.1, 111), (0.5, 1000), (0.25, 333)])
def test_the_fraction_is_of_the_whole(fraction, words):
    assert replay_words(fraction, 1000) == words
    assert abs(words / (1000 + words) - fraction) <= 0.5 / 1000


@pytest.mark.parametrize("wanted", [0, 1, 99, 100, 777, sum(range(100, 120))])
def test_exactly_the_words_wanted_are_taken(wanted):
    choice = choose_replay(CANDIDATES, wanted, seed=1)
    lengths = {candidate.document: candidate.num_words for candidate in CANDIDATES}
    taken = sum(choice.cut_words if document == choice.cut else lengths[document] for document in choice.documents)
    assert taken == choice.num_words == wanted
    assert choice.cut is None or choice.cut in choice.documents


def test_seed_and_ids_decide_not_the_order():
    choice = choose_replay(CANDIDATES, 777, seed=1)
    assert choose_replay(CANDIDATES[::-1], 777, seed=1) == choice
    assert choose_replay(CANDIDATES, 777, seed=2).documents != choice.documents


def test_too_little_general_text_is_told():
    with pytest.raises(DataError, match="5000 words of general text are wanted, but only 2190 are left"):
        choose_replay(CANDIDATES, 5000, seed=1)


def test_a_cut_document_keeps_its_first_words_as_they_stand():
    document = Document(
        id="a", text=" one\n\ntwo  three four", sections=(Section(kind="body", heading="", text="one"),), num_words=4
    )
    cut = first_words(document, 3)
    assert (cut.text, cut.num_words, cut.sections) == (" one\n\ntwo  three", 3, ())
