import numpy as np
import pytest

from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.fingerprints import (
    EXACT_COLUMN,
    FIRST_BAND_COLUMN,
    HELDOUT,
    PAPER_COLUMN,
    REPLAY,
    TRAIN,
    Fingerprinter,
    array_path,
)
from megatron_astro.corpus.words import folded_words
from megatron_astro.corpus_records import Document


def fingerprints(folder, documents, *, merge_versions=True):
    fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=merge_versions)
    for document in documents:
        fingerprinter.add(document, exam_paper=document.id == "exam")
    fingerprinter.save(folder, 3)
    return {kind: np.load(array_path(folder, kind, 3)) for kind in ("keys", "signatures", "facts", "sampled")}


def test_keys_agree_where_documents_do(tmp_path, make_text):
    text = make_text(1)
    documents = [
        Document(id="2401.00001v1", text=text),
        Document(id="2401.00001v2", text=text.upper().replace(".", " !")),
        Document(id="exam", text=make_text(2), split="heldout"),
        Document(id="x", text="", topic="replay"),
    ]
    arrays = fingerprints(tmp_path, documents)
    keys, facts, sampled = arrays["keys"], arrays["facts"], arrays["sampled"]
    assert keys.shape == (FIRST_BAND_COLUMN + 32, 4)
    assert (keys[:, 0] == keys[:, 1]).all()
    assert not (keys[:, 0] == keys[:, 2]).any()
    assert facts["version"].tolist() == [1, 2, 0, 0]
    assert facts["priority"].tolist() == [TRAIN, TRAIN, HELDOUT, REPLAY]
    assert facts["exam_paper"].tolist() == [False, False, True, False]
    assert facts["num_words"].tolist() == [200, 200 + text.count("."), 200, 0]
    assert facts["content"][0] != facts["content"][1]
    assert (sampled[0, :-1] <= sampled[0, 1:]).all()
    assert np.bincount(sampled[1].astype(int), minlength=4).tolist() == facts["num_sampled"].tolist()
    assert (sampled[0] % 8 == 0).all()


@pytest.mark.parametrize(("version", "kept"), [(10**30, 2**31 - 1), (-(10**30), 0)])
def test_a_version_beyond_all_numbers_is_the_last_or_none(tmp_path, version, kept):
    arrays = fingerprints(tmp_path, [Document(id="a", text="x", version=version)])
    assert arrays["facts"]["version"].tolist() == [kept]


def test_without_merging_versions_a_paper_is_its_id(tmp_path, make_text):
    documents = [Document(id=f"2401.00001v{version}", text=make_text(version)) for version in (1, 2)]
    keys = fingerprints(tmp_path, documents, merge_versions=False)["keys"]
    assert keys[PAPER_COLUMN, 0] != keys[PAPER_COLUMN, 1]
    assert keys[EXACT_COLUMN, 0] != keys[EXACT_COLUMN, 1]


def test_an_empty_shard_has_empty_arrays(tmp_path):
    arrays = fingerprints(tmp_path, [])
    assert {kind: array.shape for kind, array in arrays.items()} == {
        "keys": (34, 0), "signatures": (0, 128), "facts": (0,), "sampled": (2, 0),
    }  # fmt: skip


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.9])
def test_signatures_estimate_the_jaccard_similarity(make_text, similarity):
    """128 hashes: the standard error is sqrt(J (1 - J) / 128) <= 0.044; the mean of 20 pairs must be within 4 / sqrt(20) of it."""
    fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=True)
    estimates, truths = [], []
    for seed in range(20):
        words = folded_words(make_text(seed, 600))
        shared = round(len(words) * similarity)
        other = words[:shared] + folded_words(make_text(seed + 1000, 600))[shared:]
        one, two = fingerprinter.shingles(words), fingerprinter.shingles(other)
        truths.append(len(np.intersect1d(one, two)) / len(np.union1d(one, two)))
        estimates.append(np.mean(fingerprinter.signature(one) == fingerprinter.signature(two)))
    truth = np.mean(truths)
    assert abs(np.mean(estimates) - truth) < 4 * np.sqrt(truth * (1 - truth) / 128 / 20)
