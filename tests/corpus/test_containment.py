from megatron_astro.config.cleaning import DuplicatesConfig
from megatron_astro.corpus.containment import MAX_SHARERS, NUM_LONGEST, NUM_PARTITIONS, count_shared, find_contained
from megatron_astro.corpus.fingerprints import Fingerprinter
from megatron_astro.corpus.near_duplicates import FingerprintFiles
from megatron_astro.corpus_records import Document


def fingerprint(folder, texts):
    fingerprinter = Fingerprinter(DuplicatesConfig(), merge_versions=True)
    for number, text in enumerate(texts):
        fingerprinter.add(Document(id=str(number), text=text), exam_paper=False)
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


def contained(files, min_share):
    return find_contained(files, [count_shared(files, part) for part in range(NUM_PARTITIONS)], min_share)


def test_what_stands_whole_in_many_documents_is_found(tmp_path, make_text):
    short = make_text(1, 300)
    longer = [f"{make_text(seed + 10, 400)} {short} {make_text(seed + 99, 10 * seed)}" for seed in range(MAX_SHARERS + 5)]
    files = fingerprint(tmp_path, [*longer, short])
    assert {pair.small for pair in contained(files, 0.7)} == {len(longer)}
    assert {pair.large for pair in contained(files, 0.7)} <= {len(longer) - 1 - place for place in range(NUM_LONGEST)}


def test_boilerplate_and_tiny_documents_do_not_count(tmp_path, make_text):
    """Of 400 words 200 are boilerplate: about 24 of 49 sampled shingles, of the longest alone, and far from MIN_WHOLE_SHARE."""
    boilerplate = make_text(1, 200)
    files = fingerprint(
        tmp_path, [boilerplate + make_text(seed + 10, 200) for seed in range(MAX_SHARERS + 1)] + ["a few words only"] * 2
    )
    assert contained(files, 0.1) == []
