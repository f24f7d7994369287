import json
import os
import shutil

import pytest

from megatron_astro.data import tokenize
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.tokenize import write_dataset
from megatron_astro.errors import ConfigError, DataError

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}assistant: {% endif %}"


@pytest.fixture
def folder(tiny_tokenizer_folder, tmp_path):
    return shutil.copytree(tiny_tokenizer_folder, tmp_path / "tokenizer")


@pytest.fixture
def stop(monkeypatch):
    """A function that runs a request up to the merge of its parts."""

    def run(request):
        def fill(*_arguments):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(tokenize, "_merge", fill)
            with pytest.raises(DataError, match="No space left"):
                write_dataset(request)

    return run


def edit(path, old, new):
    """Change a file whose size and time of change stay what they are."""
    before = path.stat()
    content = path.read_text()
    assert old in content
    assert len(old) == len(new)
    path.write_text(content.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def refused(request, what):
    with pytest.raises(ConfigError, match=rf"data\.work was begun with another {what}.*; go on as it was begun"):
        write_dataset(request)


def test_a_corpus_is_known_by_its_content(request_for, stop, corpus, bytes_of, tmp_path):
    """A change that leaves size and time was mixed in; a copy elsewhere with another time was begun afresh."""
    write_dataset(request_for(prefix=tmp_path / "whole"))
    stop(request_for())
    edit(corpus, "Star 149 lies", "Moon 149 lies")
    refused(request_for(), r"input 1 \(corpus\.jsonl\) \(\w{24}\.\.\., now \w{24}\.\.\.\)")
    edit(corpus, "Moon 149 lies", "Star 149 lies")
    refused(
        request_for(inputs=(corpus, corpus)), r"number of inputs \(1, now 2\), another input 2 \(corpus\.jsonl\) \(none, now "
    )
    (tmp_path / "moved").mkdir()
    shutil.copyfile(corpus, tmp_path / "moved" / "corpus.jsonl")
    write_dataset(request_for(inputs=(tmp_path / "moved" / "corpus.jsonl",)))
    assert bytes_of(tmp_path / "out" / "data") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"split": "all"}, r"--split \(train, now all\)"),
        ({"eos_id": 0}, r"end-of-document token \(none, now 0\)"),
        ({"bos_id": 1}, r"begin-of-sequence token \(none, now 1\)"),
    ],
)
def test_other_options_are_named(request_for, stop, changes, what):
    stop(request_for())
    refused(request_for(**changes), what)


def test_another_tokenizer_is_named(request_for, stop, folder):
    stop(request_for(tokenizer=folder))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    refused(request_for(tokenizer=folder), r"tokenizer \(")


@pytest.fixture
def chat(request_for, folder, tmp_path):
    path = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Is it far?"}, {"role": "assistant", "content": "No."}]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE + PROMPT)
    return request_for(inputs=(path,), tokenizer=folder, conversations=True)


def test_another_chat_template_is_named(chat, stop):
    """Parts of both were put into one dataset."""
    stop(chat)
    edit(chat.tokenizer / "chat_template.jinja", "}}: {{", "}}> {{")
    refused(chat, r"chat template \(")
    edit(chat.tokenizer / "chat_template.jinja", "}}> {{", "}}: {{")
    edit(chat.tokenizer / "tokenizer_config.json", '"eos_token": "<|end|>"', '"eos_token": "<|fin|>"')
    with pytest.raises(DataError, match=r"has no token '<\|fin\|>'"):
        write_dataset(chat)
    (chat.tokenizer / "tokenizer_config.json").write_text('{"eos_token": "<|begin|>"}')
    refused(chat, r"special tokens of the chat template \(")


def test_a_tokenizer_that_changes_while_it_is_used_is_noticed(chat, monkeypatch):
    make_plan = tokenize.make_plan

    def edited(*arguments):
        edit(chat.tokenizer / "chat_template.jinja", "}}: {{", "}}> {{")
        return make_plan(*arguments)

    monkeypatch.setattr(tokenize, "make_plan", edited)
    with pytest.raises(DataError, match=r"the tokenizer in .*tokenizer changed while this command ran; run it again"):
        write_dataset(chat)


def test_a_corpus_that_grows_while_it_is_read_is_noticed(request_for, corpus, monkeypatch):
    make_plan = tokenize.make_plan

    def grown(*arguments):
        with corpus.open("a") as stream:
            stream.write('{"id": "last", "text": "late"}\n')
        return make_plan(*arguments)

    monkeypatch.setattr(tokenize, "make_plan", grown)
    with pytest.raises(DataError, match=r"corpus\.jsonl changed while it was read; run the command again when it is complete"):
        write_dataset(request_for())
    assert not dataset_file(request_for().prefix, "idx").exists()


def test_parts_of_another_version_are_named(request_for, stop):
    stop(request_for())
    plan = dataset_file(request_for().prefix, "work") / "plan.json"
    plan.write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="holds parts that another version of this command made; remove it"):
        write_dataset(request_for())
    plan.unlink()
    with pytest.raises(ConfigError, match="is no work folder of this command"):
        write_dataset(request_for())
