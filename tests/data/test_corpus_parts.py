import json

import pytest

from megatron_astro.corpus_records import Document
from megatron_astro.data import corpus_parts
from megatron_astro.data.corpus_parts import cut_corpus, read_part


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(corpus_parts, "PART_BYTES", 100)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("lengths", [[5000], [5000, 10, 5000], [1, 99, 100, 101, 200], [41] * 30])
def test_every_line_is_in_one_part_and_no_part_reads_beyond_its_lines(tmp_path, lengths):
    """Lines of many parts were read to their end in each of them: time grew with the square of a line."""
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": str(number), "text": "x" * length}) for number, length in enumerate(lengths)]
    corpus.write_text("\n".join(lines))
    parts = cut_corpus((corpus,))
    read = [row.item.id for part in parts for row in read_part(part, Document)]
    assert read == [str(number) for number in range(len(lengths))]
    begins = {0, *(len("\n".join(lines[:number])) + 1 for number in range(1, len(lines)))}
    for part in parts:
        with corpus_parts._open_at_line(part) as stream:
            assert stream.tell() in begins | {part.stop}
            assert part.start <= stream.tell() <= part.stop
