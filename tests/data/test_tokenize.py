import gzip
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from megatron_astro.data import corpus_parts
from megatron_astro.data.document_names import open_names
from megatron_astro.data.indexed import dataset_file, open_indexed
from megatron_astro.data.inspect import verify_dataset
from megatron_astro.data.token_dataset import TokenDataset, read_sidecar
from megatron_astro.data.tokenize import write_dataset
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError
from megatron_astro.provenance import file_sha256

TOOL = Path(__file__).parents[2] / "tools" / "tokenize_corpus.py"


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder):
    return TextTokenizer(tiny_tokenizer_folder)


@pytest.mark.parametrize(("bos_id", "eos_id"), [(None, None), (None, 0), (1, 0)])
def test_dataset_holds_the_documents_in_order(request_for, tokenizer, bos_id, eos_id, texts):
    request = request_for(bos_id=bos_id, eos_id=eos_id)
    record = write_dataset(request).record
    tokens = open_indexed(request.prefix)
    assert read_sidecar(tokens) == record
    before, after = [] if bos_id is None else [bos_id], [] if eos_id is None else [eos_id]
    for number, text in enumerate(texts):
        assert tokens.document(number).tolist() == before + tokenizer.encode(text) + after
    dataset = TokenDataset(request.prefix, 300)
    assert [dataset.document_id(number) for number in range(150)] == [f"doc-{number}" for number in range(150)]
    assert (record.append_eod, record.eod_id, record.prepend_bos, record.bos_id) == (
        eos_id is not None,
        eos_id,
        bos_id is not None,
        bos_id,
    )
    assert (record.lowest_id, record.highest_id) == (tokens.ids.min(), tokens.ids.max())
    assert record.bin_sha256 == file_sha256(dataset_file(request.prefix, "bin"))
    assert record.idx_sha256 == file_sha256(dataset_file(request.prefix, "idx"))
    assert record.documents_sha256 == record.inputs[0].sha256 == file_sha256(request.inputs[0])
    assert record.tokenizer_sha256 == tokenizer.sha256
    assert [file.name for file in record.files] == [".idx", ".bin", ".ids"]
    assert sorted(path.name for path in request.prefix.parent.iterdir()) == ["data.bin", "data.ids", "data.idx", "data.json"]


def test_bytes_do_not_depend_on_workers_or_parts(request_for, tmp_path, monkeypatch, bytes_of):
    monkeypatch.setattr(corpus_parts, "PART_BYTES", 1000)
    written = {}
    for name, workers in (("one", 1), ("two", 2), ("three", 3)):
        write_dataset(request_for(prefix=tmp_path / name, shuffle_seed=5, workers=workers))
        written[name] = bytes_of(tmp_path / name)
    monkeypatch.setattr(corpus_parts, "PART_BYTES", 1 << 20)
    write_dataset(request_for(prefix=tmp_path / "whole", shuffle_seed=5))
    assert written["one"] == written["two"] == written["three"] == bytes_of(tmp_path / "whole")


def test_shuffle_is_a_permutation_chosen_by_the_seed(request_for, tmp_path, tokenizer, texts):
    orders = {}
    for seed in (1, 2):
        write_dataset(request_for(prefix=tmp_path / str(seed), shuffle_seed=seed))
        names = open_names(dataset_file(tmp_path / str(seed), "ids"))
        orders[seed] = [int(names.name(number).removeprefix("doc-")) for number in range(150)]
        tokens = open_indexed(tmp_path / str(seed))
        assert all(tokens.document(at).tolist() == tokenizer.encode(texts[number]) for at, number in enumerate(orders[seed]))
        assert (names.lines - 1).tolist() == orders[seed]
    assert sorted(orders[1]) == sorted(orders[2]) == list(range(150))
    assert orders[1] != orders[2]
    assert orders[1] != sorted(orders[1])


def test_archives_and_parquet_hold_the_same_documents(request_for, tmp_path, corpus):
    import pyarrow
    from pyarrow import parquet

    lines = corpus.read_text().splitlines()
    with gzip.open(tmp_path / "first.jsonl.gz", "wt") as stream:
        stream.write("\n".join(lines[:60]))
    rows = [json.loads(line) for line in lines[60:]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rest.parquet", row_group_size=40)
    write_dataset(request_for())
    record = write_dataset(
        request_for(inputs=(tmp_path / "first.jsonl.gz", tmp_path / "rest.parquet"), prefix=tmp_path / "mixed")
    ).record
    assert dataset_file(tmp_path / "mixed", "bin").read_bytes() == dataset_file(tmp_path / "out" / "data", "bin").read_bytes()
    assert [file.num_documents for file in record.inputs] == [60, 90]
    names = open_names(dataset_file(tmp_path / "mixed", "ids"))
    assert names.lines.tolist() == [*range(1, 61), *range(1, 91)]
    assert names.inputs.tolist() == [0] * 60 + [1] * 90


BAD_LINES = [
    (b'{"id": "a", "txt": 3}', "not a Document: Object missing required field `text`"),
    (b'{"id": "a", "text": "caf\xe9"}', "not UTF-8 (byte 0xe9 at column 25)"),
    (b'{"id": "a", "text": "\\ud800"}', "not a Document"),
    (b"not json", "not a Document: JSON is malformed"),
    (b'{"id": "", "text": "x"}', "the id is empty"),
    (b'{"id": "a", "text": " "}', "the text is empty"),
    (b'{"id": "doc-3", "text": "again"}', "has the same id, 'doc-3'"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
@pytest.mark.parametrize("part_bytes", [500, 1 << 20])
def test_malformed_lines_are_listed_and_stop_the_run_unless_allowed(
    request_for, corpus, tmp_path, line, reason, part_bytes, monkeypatch
):
    monkeypatch.setattr(corpus_parts, "PART_BYTES", part_bytes)
    content = corpus.read_bytes().splitlines()
    corpus.write_bytes(b"\n".join([*content[:100], b"", line, *content[100:]]))
    with pytest.raises(DataError, match=r"corpus.jsonl, line 102: ") as caught:
        write_dataset(request_for())
    assert reason in str(caught.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.rejects.jsonl"]
    record = write_dataset(request_for(max_rejects=1)).record
    assert (record.num_documents, record.num_rejected) == (150, 1)
    reject = json.loads((tmp_path / "out" / "data.rejects.jsonl").read_text())
    assert (reject["file"], reject["line"]) == (str(corpus), 102)
    assert reason in reject["reason"]
    verify_dataset(tmp_path / "out" / "data")


def test_no_documents_are_named(request_for, corpus):
    with pytest.raises(DataError, match="holds no documents of split 'heldout'"):
        write_dataset(request_for(split="heldout"))
    corpus.write_text("")
    with pytest.raises(DataError, match="holds no documents of split 'all'"):
        write_dataset(request_for(split="all"))


def test_a_stopped_run_goes_on(request_for, corpus, tmp_path, monkeypatch, bytes_of):
    """The third part fails once: what is done before stays, and is not read again, unless the corpus has changed."""
    monkeypatch.setattr(corpus_parts, "PART_BYTES", 1000)
    write_dataset(request_for(prefix=tmp_path / "whole"))
    read = []

    def failing(part, kind):
        read.append(part.start)
        if part.start == 3000 and read.count(3000) == 1:
            raise OSError(28, "No space left on device")
        yield from corpus_parts.read_part(part, kind)

    monkeypatch.setattr("megatron_astro.data.tokenize_part.read_part", failing)
    with pytest.raises(
        DataError,
        match=r"data could not be finished: No space left on device \(.*out\); free the disk, then run the command again",
    ):
        write_dataset(request_for())
    assert not dataset_file(tmp_path / "out" / "data", "idx").exists()
    assert read == [0, 1000, 2000, 3000]
    write_dataset(request_for())
    assert read[4:] == list(range(3000, corpus.stat().st_size, 1000))
    assert bytes_of(tmp_path / "out" / "data") == bytes_of(tmp_path / "whole")
    assert not (tmp_path / "out" / "data.work").exists()


def start(command, output):
    return subprocess.Popen([*command, "--output", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(run):
    return [child for child in psutil.Process(run.pid).children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_killed_runs_end_in_the_same_bytes(tmp_path, tiny_tokenizer_folder, bytes_of, wait_for):
    """kill -9 of the command and of a worker, again and again, until a run comes to its end."""
    corpus = tmp_path / "corpus.jsonl"
    with corpus.open("w") as stream:
        for number in range(24_000):
            text = f"Star {number} lies {number * 7} parsecs away, and shines. " * 50
            stream.write(json.dumps({"id": str(number), "text": text}) + "\n")
    command = [sys.executable, TOOL, corpus, "--tokenizer", tiny_tokenizer_folder, "--shuffle", "documents", "--workers", "2"]
    subprocess.run([*command, "--output", tmp_path / "whole"], check=True, capture_output=True)
    parts = tmp_path / "killed.work"
    with start(command, tmp_path / "killed") as run:
        wait_for(lambda: list(parts.glob("part_*.json")))
        run.kill()
    assert run.returncode == -signal.SIGKILL
    with start(command, tmp_path / "killed") as run:
        wait_for(lambda: workers_of(run))[0].kill()
        assert "a worker process ended early (killed by signal 9)" in run.communicate()[1]
    assert run.returncode == 2
    assert not (tmp_path / "killed.idx").exists()
    done = subprocess.run([*command, "--output", tmp_path / "killed"], check=True, capture_output=True, text=True)
    assert "going on with" in done.stderr
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_conversations_get_a_mask_beside_that_megatron_can_read(request_for, tiny_tokenizer_folder, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    from megatron_astro.corpus_records import Message
    from megatron_astro.data.conversations import ChatEncoder

    folder = shutil.copytree(tiny_tokenizer_folder, tmp_path / "chat")
    turns = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
    template = turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    talks = [[("user", f"Is star {number} far?"), ("assistant", "No. " * (number + 1))] for number in range(20)]
    lines = [{"messages": [{"role": role, "content": content} for role, content in talk]} for talk in talks]
    lines[7]["id"] = "seven"
    chat = tmp_path / "chat.jsonl"
    chat.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"messages": [{"role": "user", "content": "x"}]}\n')
    request = request_for(inputs=(chat,), tokenizer=folder, conversations=True, eos_id=1, shuffle_seed=3, max_rejects=1)
    record = write_dataset(request).record
    assert (record.loss_mask, record.num_documents, record.num_rejected) == (True, 20, 1)
    verify_dataset(request.prefix)
    names = open_names(dataset_file(request.prefix, "ids"))
    tokens, mask = (IndexedDataset(str(prefix)) for prefix in (request.prefix, request.prefix.with_name("data_mask")))
    encoder = ChatEncoder(TextTokenizer(folder))
    for number, line in enumerate(names.lines.tolist()):
        ids, taken = encoder.encode([Message(role=role, content=content) for role, content in talks[line - 1]])
        assert (tokens[number].tolist(), mask[number].tolist()) == ([*ids, 1], [*taken, 0])
        assert names.name(number) == ("seven" if line == 8 else f"input 0, line {line}")
    path = request.prefix.with_name("data_mask.bin")
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"data_mask\.bin changed since it was written"):
        verify_dataset(request.prefix)
