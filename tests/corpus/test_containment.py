import numpy as np

from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.containment import MAX_SHARERS, NUM_PARTITIONS, count_shared, find_contained
from megatron_astro.corpus.fingerprints import Fingerprinter
from megatron_astro.corpus.near_duplicates import FingerprintFiles
from megatron_astro.corpus_records import Document


def fingerprint(folder, texts):
    fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=True)
    for number, text in enumerate(texts):
        fingerprinter.add(Document(id=str(number), text=text), exam_paper=False)
    for kind in ("keys", "signatures", "facts", "sampled"):
        (folder / kind).mkdir()
    fingerprinter.save(folder, 0)
    return FingerprintFiles(folder, 1)


def test_partitions_cover_every_sampled_shingle_once(tmp_path, make_text):
    files = fingerprint(tmp_path, [make_text(seed, 500) for seed in range(3)])
    step = 2**64 // NUM_PARTITIONS
    sizes = [len(files.sampled_shingles(part * step, (part + 1) * step - 1)[0]) for part in range(NUM_PARTITIONS)]
    assert sum(sizes) == files.facts["num_sampled"].sum() > 100
    assert sum(size > 0 for size in sizes) == NUM_PARTITIONS


def test_shares_are_those_of_the_text(tmp_path, make_text):
    """Half of a text of 4,000 words: about 250 of 500 sampled shingles, standard error of the share 0.022; four of them are allowed."""
    text, other = make_text(1, 4000), make_text(2, 6000)
    half = " ".join(text.split(" ")[: len(text.split(" ")) // 2])
    files = fingerprint(tmp_path, [text, f"{half} {other}", other])
    shared = [count_shared(files, part) for part in range(NUM_PARTITIONS)]
    found = {(pair.small, pair.large): pair.share for pair in find_contained(files, shared, 0.3)}
    assert set(found) == {(0, 1), (2, 1)}
    assert abs(found[0, 1] - 0.5) < 4 * 0.022
    assert found[2, 1] > 0.99


def test_boilerplate_and_tiny_documents_do_not_count(tmp_path, make_text):
    boilerplate = make_text(1, 300)
    files = fingerprint(
        tmp_path, [boilerplate + make_text(seed + 10, 50) for seed in range(MAX_SHARERS + 1)] + ["a few words only"] * 2
    )
    assert [len(count_shared(files, part)) for part in range(NUM_PARTITIONS) if len(count_shared(files, part)) > 1] == []
    shared = np.concatenate([count_shared(files, part) for part in range(NUM_PARTITIONS)])
    assert find_contained(files, [shared], 0.1) == []
