import json
import shutil

import pytest

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.merge_checks import check_mergeable
from megatron_astro.errors import CheckpointError, ConfigError


@pytest.fixture
def pair(gqa, tiny_tokenizer_folder, tmp_path):
    """Two copies of one model and its tokenizer."""
    folders = tmp_path / "first", tmp_path / "other"
    for folder in folders:
        shutil.copytree(gqa, folder)
        shutil.copyfile(tiny_tokenizer_folder / "tokenizer.json", folder / "tokenizer.json")
    return folders


def check(pair):
    first, other = (HuggingFaceReader(folder) for folder in pair)
    check_mergeable(first, [other])


def change(folder, how):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    how(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def test_equal_models_pass(pair):
    check(pair)


def test_the_two_ways_to_write_merges_are_one(pair):
    change(pair[1], lambda tokenizer: tokenizer["model"].update(merges=[" ".join(pair) for pair in tokenizer["model"]["merges"]]))
    check(pair)


def test_a_setting_that_is_off_may_be_absent(pair):
    change(pair[1], lambda tokenizer: [tokenizer["model"].pop(key) for key in ("type", "fuse_unk", "dropout", "ignore_merges")])
    check(pair)


def test_a_configuration_that_is_none_is_named_with_its_folder(pair):
    config = json.loads((pair[1] / "config.json").read_text())
    (pair[1] / "config.json").write_text(json.dumps({**config, "hidden_size": "32"}))
    with pytest.raises(ConfigError, match=r"other/config\.json: hidden_size is '32'"):
        check(pair)


def test_chat_templates_may_differ(pair):
    (pair[1] / "chat_template.jinja").write_text("{{ messages }}")
    check(pair)


def move(tokenizer, word, number):
    tokenizer["model"]["vocab"][word] = number


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda t: t["added_tokens"].append({"id": 300, "content": "<pad>"}), r"adds 1 token: '<pad>' \(300\)"),
        (lambda t: t["model"]["vocab"].pop("A"), r"lacks .*first's 1 token: 'A'"),
        (lambda t: (move(t, "A", 400), move(t, "B", 401)), r"renumbers 2 tokens: 'A' \(400\), 'B' \(401\)"),
        (lambda t: t["model"]["merges"].reverse(), "has other merges"),
        (lambda t: t.update(normalizer={"type": "NFC"}), "has another normalizer"),
        (lambda t: t.update(pre_tokenizer=None), "has another pre_tokenizer"),
        (lambda t: t.update(post_processor={"type": "RobertaProcessing"}), "has another post_processor"),
        (lambda t: t["model"].update(byte_fallback=True), r"has another model\.byte_fallback"),
        (lambda t: t["model"].update(type="Unigram"), r"has another model\.type"),
        (lambda t: t["added_tokens"][0].update(lstrip=True), r"has another setting of the added token <\|end\|>"),
        (lambda t: t["model"].update(merges=[1]), r"other/tokenizer\.json has .* merges that cannot be read"),
    ],
)
def test_another_vocabulary_is_refused_and_named(pair, how, words):
    change(pair[1], how)
    with pytest.raises(CheckpointError, match=words):
        check(pair)


def test_a_tokenizer_in_one_folder_only_is_refused(pair):
    (pair[1] / "tokenizer.json").rename(pair[1] / "tokenizer.model")
    with pytest.raises(CheckpointError, match="cannot be compared"):
        check(pair)


def test_sentencepiece_files_are_compared_byte_by_byte(pair):
    for folder in pair:
        (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    check(pair)
    (pair[1] / "tokenizer.model").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model differs"):
        check(pair)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 130}, "vocabulary_size is 130, not 131"),
        ({"num_hidden_layers": 3}, "num_layers is 3, not 4"),
        ({"rms_norm_eps": 1e-6}, "norm_epsilon is 1e-06, not 1e-05"),
        ({"tie_word_embeddings": True}, "tied_embeddings is True, not False"),
    ],
)
def test_another_architecture_is_refused_and_named(pair, make_llama, changes, words):
    with pytest.raises(CheckpointError, match=words):
        check((pair[0], make_llama(**changes)))
