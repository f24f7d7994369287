import resource
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from megatron_astro.data import merge_parts
from megatron_astro.data.corpus_parts import CorpusPart
from megatron_astro.data.document_names import open_names
from megatron_astro.data.merge_parts import drop_repeated_names, in_written_order, open_parts
from megatron_astro.data.tokenize_part import TABLE, PartRecord, part_file

PATHS = [Path("a.jsonl"), Path("b.jsonl")]


@pytest.fixture
def make_parts(tmp_path):
    """A function that writes parts of the named documents, [part][document], as workers do: document n has n % 5 tokens, all n."""

    def make(named, hashes=1 << 32):
        parts, records, number = [], [], 0
        for at, names in enumerate(named):
            encoded = [name.encode() for name in names]
            numbers = np.arange(number, number + len(names))
            number += len(names)
            np.repeat(numbers, numbers % 5).astype(np.uint16).tofile(part_file(tmp_path, at, "bin"))
            part_file(tmp_path, at, "names").write_bytes(b"".join(encoded))
            table = np.zeros(len(names), TABLE)
            table["tokens"], table["line"] = numbers % 5, np.arange(1, len(names) + 1)
            table["name_bytes"], table["name_hash"] = (
                [len(name) for name in encoded],
                [zlib.crc32(name) % hashes for name in encoded],
            )
            table.tofile(part_file(tmp_path, at, "tables"))
            half = int(at >= len(named) / 2)
            parts.append(CorpusPart(input=half, path=PATHS[half], kind="lines", start=0, stop=1))
            counts = dict.fromkeys(("num_lines", "num_documents", "num_tokens", "num_characters"), len(names))
            records.append(PartRecord(**counts, rejects=()))
        return open_parts(tmp_path, parts, records)

    return make


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("at_once", [1, 3, 1 << 20])
def test_documents_are_written_in_their_order(make_parts, tmp_path, monkeypatch, seed, at_once):
    monkeypatch.setattr(merge_parts, "DOCUMENTS_AT_ONCE", at_once)
    monkeypatch.setattr(merge_parts, "PIECE_BYTES", 20)
    documents, repeats = drop_repeated_names(make_parts([["a", "b"], [], ["", "c", "", "b"], ["", "a", "d"]], hashes=2), PATHS)
    assert [(one.file, one.line) for one in repeats] == [("b.jsonl", 4), ("b.jsonl", 6)]
    assert repeats[0].reason.startswith("line 2 of a.jsonl has the same id, 'b'")
    written = in_written_order(documents, seed)
    order = [0, 1, 2, 3, 4, 6, 8] if seed is None else written.order.tolist()
    assert sorted(order) == [0, 1, 2, 3, 4, 6, 8]
    written.write_tokens(tmp_path / "out.bin", "bin", 2)
    assert np.fromfile(tmp_path / "out.bin", np.uint16).tolist() == [number for number in order for _ in range(number % 5)]
    assert written.lengths().tolist() == [number % 5 for number in order]
    assert written.count_by_input(2) == [2, 5]
    written.write_names(tmp_path / "out.ids")
    names = open_names(tmp_path / "out.ids")
    assert names.lines.tolist() == [[1, 2, 1, 2, 3, 4, 5, 6, 7][number] for number in order]
    assert names.inputs.tolist() == [int(number > 1) for number in order]
    expected = ["a", "b", "input 1, line 1", "c", "input 1, line 3", "", "input 1, line 5", "", "d"]
    assert [names.name(number) for number in range(7)] == [expected[number] for number in order]


def test_more_parts_than_a_process_may_open_are_merged(make_parts, tmp_path):
    """A corpus of 9 GB, in parts of 8 MiB, has more than the usual 1024."""
    documents = in_written_order(make_parts([[f"{number}"] for number in range(300)]), 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 100, hard))
    try:
        documents.write_tokens(tmp_path / "out.bin", "bin", 2)
        documents.write_names(tmp_path / "out.ids")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(open_names(tmp_path / "out.ids")) == 300


def test_memory_is_what_the_module_says(make_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(merge_parts, "DOCUMENTS_AT_ONCE", 1 << 10)
    count, a_part = 40_000, 10_000
    make_parts([[str(number) for number in range(start, start + a_part)] for start in range(0, count, a_part)])
    parts = [CorpusPart(input=0, path=PATHS[0], kind="lines", start=0, stop=1)] * (count // a_part)
    records = [PartRecord(num_lines=1, num_documents=a_part, num_tokens=1, num_characters=1, rejects=())] * len(parts)
    tracemalloc.start()
    try:
        documents, _ = drop_repeated_names(open_parts(tmp_path, parts, records), PATHS)
        comparing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        documents = in_written_order(documents, 1)
        documents.write_tokens(tmp_path / "out.bin", "bin", 2)
        documents.write_names(tmp_path / "out.ids")
        writing = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert comparing < (24 + 28) * count + 28 * a_part  # a part's own table, before its columns are taken out
    assert writing < (24 + 8) * count + 300_000  # the documents of a block
