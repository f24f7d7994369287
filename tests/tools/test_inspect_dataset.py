import subprocess
import sys
from pathlib import Path

import pytest

from megatron_astro.data.tokenize import write_dataset
from megatron_astro.data.tokenize_request import TokenizeRequest

TOOL = Path(__file__).parents[2] / "tools" / "inspect_dataset.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def prefix(tmp_path, tiny_tokenizer_folder):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "sun", "text": "The Sun is a star."}\n{"id": "moon", "text": "The Moon is not."}\n')
    write_dataset(TokenizeRequest(inputs=(corpus,), tokenizer=tiny_tokenizer_folder, prefix=tmp_path / "data", eos_id=0))
    return tmp_path / "data"


def test_shows_statistics_and_documents(prefix, tiny_tokenizer_folder):
    done = run(prefix, "--tokenizer", tiny_tokenizer_folder, "--show", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 documents" in done.stdout
    assert "tokens a document: " in done.stdout
    assert "--- sun (" in done.stdout
    assert "The Sun is a star.<|end|>" in done.stdout
    assert "The Moon" not in done.stdout
    assert done.stdout.endswith("data is whole: index, sizes and checksums agree.\n")


@pytest.mark.parametrize(
    ("ending", "keep", "text"),
    [("idx", 40, "data.idx has 40 bytes, and its sidecar says"), ("bin", 6, "data.bin has 6 bytes, and its sidecar says")],
)
def test_truncated_files_are_one_line_and_status_2(prefix, ending, keep, text):
    path = prefix.with_name(f"data.{ending}")
    path.write_bytes(path.read_bytes()[:keep])
    done = run(prefix)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_changed_content_is_status_2(prefix):
    path = prefix.with_name("data.bin")
    content = bytearray(path.read_bytes())
    content[4] ^= 1
    path.write_bytes(content)
    done = run(prefix)
    assert done.returncode == 2
    assert "data.bin changed since it was written" in done.stderr


def test_show_needs_a_tokenizer(prefix):
    done = run(prefix, "--show", 3)
    assert done.returncode == 2
    assert "--show is 3, but no --tokenizer is given" in done.stderr


def test_a_negative_number_of_documents_is_refused(prefix):
    done = run(prefix, "--show", -3)
    assert done.returncode == 2
    assert done.stderr == "error: --show is -3; give zero or more documents\n"
