import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron_astro.checkpoint.gguf_fields import read_fields
from megatron_astro.errors import CheckpointError


def fields(**values):
    """An opened file with these fields, as the package shows it."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return SimpleNamespace(fields={name: SimpleNamespace(contents=lambda value=value: value) for name, value in named.items()})


def test_all_fields_are_there_by_name():
    found = read_fields(Path("model.gguf"), fields(llama__block_count=4, llama__rope__freq_base=5, other=[1, "x"]))
    assert found == {"llama.block_count": 4, "llama.rope.freq_base": 5.0, "other": [1, "x"]}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("llama__attention__head_count", 0, "is 0, where one whole number above zero belongs"),
        ("llama__attention__head_count", "8", "is '8', where one whole number above zero belongs"),
        ("llama__attention__head_count_kv", [8, 8], "is [8, 8], where one whole number"),
        ("llama__block_count", True, "is True, where one whole number"),
        ("llama__embedding_length", 4096.0, "is 4096.0, where one whole number"),
        ("llama__rope__freq_base", "1e4", "is '1e4', where one number above zero"),
        ("llama__attention__layer_norm_rms_epsilon", float("nan"), "is nan, where one number above zero"),
        ("tokenizer__ggml__model", ["gpt2"], "is ['gpt2'], where text"),
        ("tokenizer__ggml__tokens", [1, 2], "is [1, 2], where a list of texts"),
        ("tokenizer__ggml__scores", "high", "is 'high', where a list of numbers"),
        ("tokenizer__ggml__eos_token_id", -1, "is -1, where the id of a token"),
        ("tokenizer__ggml__add_bos_token", 1, "is 1, where true or false"),
        ("tokenizer__ggml__merges", list(range(10**5)), "is [0, 1, 2, 3, 4, 5, ...], where a list of texts"),
    ],
)
def test_a_field_of_another_kind_is_named_with_its_value_and_file(field, value, words):
    expected = re.escape(f"model.gguf: {field.replace('__', '.')} {words}")
    with pytest.raises(CheckpointError, match=f"^{expected}"):
        read_fields(Path("model.gguf"), fields(**{field: value}))


def test_text_that_is_not_utf_8():
    field = SimpleNamespace(contents=lambda: b"\xff".decode())
    with pytest.raises(CheckpointError, match=r"^model.gguf: tokenizer.chat_template holds text that is not UTF-8"):
        read_fields(Path("model.gguf"), SimpleNamespace(fields={"tokenizer.chat_template": field}))
