import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_astro.data.document_names import open_names
from megatron_astro.data.indexed import dataset_file, open_indexed
from megatron_astro.data.tokenizer import TextTokenizer

TOOL = Path(__file__).parents[2] / "tools" / "tokenize_corpus.py"
SUN = {"id": "sun", "text": "The Sun is a star."}
MOON = {"id": "moon", "text": "The Moon is not.", "split": "heldout"}


def run(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def names(prefix):
    opened = open_names(dataset_file(prefix, "ids"))
    return [opened.name(number) for number in range(len(opened))]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps(SUN) + "\n" + json.dumps(MOON) + "\n")
    return path


def test_writes_the_train_split_and_says_so(tmp_path, corpus, tiny_tokenizer_folder):
    done = run(corpus, "--tokenizer", tiny_tokenizer_folder, "--output", tmp_path / "out" / "train")
    assert done.returncode == 0
    assert "reference library" not in done.stderr
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert done.stdout == (
        f"Wrote {tmp_path}/out/train.bin, .idx, .ids and .json: 1 documents, {record['num_tokens']} tokens "
        f"({18 / record['num_tokens']:.2f} characters a token; BOS None, EOD 0).\n"
    )
    assert (names(tmp_path / "out" / "train"), record["eod_id"], record["split"]) == (["sun"], 0, "train")


def test_options_choose_split_and_end_of_document(tmp_path, corpus, tiny_tokenizer_folder):
    options = ("--tokenizer", tiny_tokenizer_folder, "--output", tmp_path / "data", "--split", "all")
    assert run(corpus, *options, "--append-eod", "False").returncode == 0
    record = json.loads((tmp_path / "data.json").read_text())
    assert (names(tmp_path / "data"), record["eod_id"], record["bos_id"]) == (["sun", "moon"], None, None)
    for ending in ("bin", "idx", "ids", "json"):
        (tmp_path / f"data.{ending}").unlink()
    assert run(corpus, *options, "--eod-token", "<|begin|>", "--prepend-bos", "True").returncode == 0
    record = json.loads((tmp_path / "data.json").read_text())
    assert (record["eod_id"], record["bos_id"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--seed", 3), "--seed is 3, but documents keep the order of the inputs; give --shuffle documents too, or no seed"),
        (("--eod-token", "<|end|>", "--append-eod", "False"), "--eod-token is '<|end|>', but --append-eod is False"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, corpus, tiny_tokenizer_folder, options, text):
    done = run(corpus, "--tokenizer", tiny_tokenizer_folder, "--output", tmp_path / "data", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert text in done.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "corpus.jsonl holds no documents"),
        (b'{"id": "a", "text": "caf\xe9"}\n', "corpus.jsonl, line 1: not UTF-8 (byte 0xe9 at column 25)"),
        (b'{"id": "a", "txt": "x"}\n', "corpus.jsonl, line 1: not a Document: Object missing required field `text`"),
    ],
    ids=["empty", "latin-1", "no text"],
)
def test_bad_corpus_is_one_line_status_2_and_no_file(tmp_path, corpus, tiny_tokenizer_folder, content, text):
    corpus.write_bytes(content)
    done = run(corpus, "--tokenizer", tiny_tokenizer_folder, "--output", tmp_path / "out" / "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("data.[!r]*"))


def test_missing_tokenizer_is_one_line(tmp_path, corpus):
    done = run(corpus, "--tokenizer", tmp_path, "--output", tmp_path / "data")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "tokenizer.json: No such file" in done.stderr


def test_misspelt_option_names_the_nearest(tmp_path, corpus):
    done = run(corpus, "--tokeniser", tmp_path, "--output", tmp_path / "data")
    assert done.returncode == 2
    assert "--tokenizer" in done.stderr


def test_conversations_get_a_mask_over_the_replies(tmp_path, tiny_tokenizer_folder):
    """Both ways round: what the mask takes, decoded, is the assistant's turns with their end, and nothing else."""
    folder = shutil.copytree(tiny_tokenizer_folder, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
    )
    turns = [
        {"role": role, "content": text}
        for role, text in (("user", "What is the Sun?"), ("assistant", "A star."), ("user", "And Sirius?"), ("assistant", "Two."))
    ]
    chat = tmp_path / "chat.jsonl"
    chat.write_text(
        "".join(json.dumps({"id": name, "messages": turns[:count]}) + "\n" for name, count in (("one", 2), ("both", 4)))
    )
    options = ("--tokenizer", folder, "--output", tmp_path / "data", "--append-eod", "False")
    done = run(chat, *options, "--content", "conversations")
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert names(tmp_path / "data") == ["one", "both"]
    tokens, mask, tokenizer = open_indexed(tmp_path / "data"), open_indexed(tmp_path / "data_mask"), TextTokenizer(folder)
    trained = [tokenizer.decode(tokens.document(n)[mask.document(n) == 1].tolist()) for n in range(2)]
    assert trained == ["A star.<|end|>", "A star.<|end|>Two.<|end|>"]
    assert json.loads((tmp_path / "data.json").read_text())["loss_mask"] is True
    shown = subprocess.run(
        [sys.executable, TOOL.with_name("inspect_dataset.py"), tmp_path / "data"], capture_output=True, text=True
    )
    assert f"loss taken on {mask.ids.sum()} of {tokens.num_tokens} tokens" in shown.stdout


def test_documents_are_no_conversations(tmp_path, corpus, tiny_tokenizer_folder):
    shutil.copy(tiny_tokenizer_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "chat_template": "{{ messages }}"}))
    done = run(corpus, "--tokenizer", tmp_path, "--output", tmp_path / "data", "--content", "conversations")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "corpus.jsonl, line 1: not a Conversation: Object missing required field `messages`" in done.stderr
