from dataclasses import replace

import numpy as np
import pytest

from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.containment import NUM_PARTITIONS, count_shared, find_contained
from megatron_astro.corpus.fingerprints import FIRST_BAND_COLUMN, Fingerprinter
from megatron_astro.corpus.near_duplicates import FingerprintFiles, find_pairs
from megatron_astro.corpus.survivors import SurvivorChoice
from megatron_astro.corpus_records import Document

ALL = frozenset(["same_paper", "exact", "near", "contained"])


@pytest.fixture
def drops(tmp_path):
    """What goes of some documents, spread over shards: id -> (rule, id of the cause, similarity)."""

    def find(documents, *, exam=(), rules=ALL, num_shards=3):
        config = DuplicatesConfig()
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        for shard in range(num_shards):
            fingerprinter = Fingerprinter(config, merge_versions=True)
            for document in documents[len(documents) * shard // num_shards : len(documents) * (shard + 1) // num_shards]:
                fingerprinter.add(document, exam_paper=document.id in exam)
            fingerprinter.save(folder, shard)
        files = FingerprintFiles(folder, num_shards)
        pairs = np.concatenate([find_pairs(files, column, 0.7) for column in range(FIRST_BAND_COLUMN + config.bands)])
        contained = find_contained(files, [count_shared(files, part) for part in range(NUM_PARTITIONS)], 0.7)
        choice = SurvivorChoice(files, {number: document.id for number, document in enumerate(documents)}, rules)
        choice.drop_clusters(pairs)
        choice.drop_contained(contained)
        return {
            documents[drop.document].id: (drop.rule, documents[drop.because_of].id, drop.similarity)
            for drop in choice.sorted_drops()
        }

    return find


def reasons(found):
    return {name: (rule, cause) for name, (rule, cause, _) in found.items()}


@pytest.fixture(scope="session")
def paper(make_text):
    """A paper in many forms; `short` is what of it another text may hold."""
    text = make_text(1, 1000)
    words = text.split(" ")
    edited = " ".join(word + ("x" if number % 60 == 0 else "") for number, word in enumerate(words))
    return {"text": text, "edited": edited, "short": " ".join(words[:400]), "other": make_text(2, 1000)}


def test_the_newest_version_of_the_longest_text_stays(drops, paper):
    documents = [
        Document(id="2401.00001v1", text=paper["text"] + " a longer first version"),
        Document(id="2401.00001v2", text=paper["text"]),
        Document(id="joss-copy", text=paper["edited"]),
        Document(id="other", text=paper["other"]),
    ]
    expected = {"2401.00001v1": ("same_paper", "2401.00001v2"), "joss-copy": ("near", "2401.00001v2")}
    found = drops(documents)
    assert reasons(found) == expected
    assert 0.7 < found["joss-copy"][2] < 1
    for order in ([3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]):
        for num_shards in (1, 4):
            assert drops([documents[number] for number in order], num_shards=num_shards) == found


def test_exact_copies_are_told_as_such(drops, paper):
    documents = [Document(id="b", text=paper["text"]), Document(id="a", text=paper["text"].upper())]
    assert reasons(drops(documents)) == {"b": ("exact", "a")}
    assert reasons(drops(documents, rules=ALL - {"exact"})) == {"b": ("near", "a")}


def test_what_stands_in_a_longer_document_goes(drops, paper, make_text):
    long, short = Document(id="long", text=paper["other"] + " " + paper["text"]), Document(id="short", text=paper["short"])
    found = drops([short, long, Document(id="unrelated", text=paper["edited"][::-1])])
    assert reasons(found) == {"short": ("contained", "long")}
    assert found["short"][2] == 1.0
    longest = Document(id="longest", text=long.text + " " + make_text(9, 1500))  # the long one stands in it in its turn
    assert reasons(drops([short, long, longest])) == {"short": ("contained", "longest"), "long": ("contained", "longest")}


def test_one_document_in_two_others_does_not_join_them(drops, paper, make_text):
    documents = [Document(id=f"long{number}", text=f"{make_text(number + 5, 1000)} {paper['short']}") for number in (1, 2)]
    found = reasons(drops([*documents, Document(id="short", text=paper["short"])]))
    assert list(found) == ["short"]


@pytest.mark.parametrize("held", ["short", "long"])
def test_held_out_documents_stay_and_copies_to_train_on_go(drops, paper, held):
    documents = {"short": Document(id="short", text=paper["short"]), "long": Document(id="long", text=paper["text"])}
    documents[held] = replace(documents[held], split="heldout")
    gone = "long" if held == "short" else "short"
    assert reasons(drops(list(documents.values()))) == {gone: ("contained", held)}
    copies = [Document(id="a", text=paper["text"]), Document(id="b", text=paper["text"], split="heldout")]
    assert reasons(drops(copies)) == {"a": ("exact", "b")}


def test_general_text_goes_before_the_corpus(drops, paper):
    documents = [Document(id="a", text=paper["text"], topic="replay"), Document(id="b", text=paper["text"])]
    assert reasons(drops(documents)) == {"a": ("exact", "b")}


def test_an_exams_paper_takes_its_copies_and_parts_along(drops, paper):
    documents = [
        Document(id="2401.00001v1", text=paper["text"]),
        Document(id="copy", text=paper["edited"] + " longer"),
        Document(id="part", text=paper["short"]),
        Document(id="2402.00002", text=paper["other"]),
    ]
    found = drops(documents, exam=("2401.00001v1", "2402.00002"))
    assert {name: rule for name, (rule, _, _) in found.items()} == {document.id: "source_paper" for document in documents}
    causes = {name: cause for name, (_, cause, _) in found.items()}
    assert (causes["2401.00001v1"], causes["copy"], causes["2402.00002"]) == ("2401.00001v1", "2401.00001v1", "2402.00002")
    assert causes["part"] in ("2401.00001v1", "copy")


def test_the_near_duplicates_among_real_papers_are_found(drops, papers):
    """The set's README names five pairs. Two hold each other's text and must be found; of ccl-note and ccl-paper a fifth of the shorter
    stands in the longer, of the twoface pair a sixth: other papers on the same work, which must stay. No pair but the two may be found."""
    documents = [Document(id=name, text=text) for name, text in papers.items()]
    found = reasons(drops(documents))
    assert found == {"joss-emcee": ("contained", "emcee-joss-tex"), "joss-legwork": ("contained", "legwork")}
