from pathlib import Path

import pytest

from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.errors import ConfigError

LATIN_1 = Path("caf\udce9.jsonl")  # as Python reads a file name whose bytes are Latin-1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"inputs": ()}, "no corpus is named"),
        ({"inputs": (Path("a.jsonl"), LATIN_1)}, r"the name of 'caf\\udce9\.jsonl' is not UTF-8"),
        ({"tokenizer": LATIN_1}, "is not UTF-8"),
        ({"prefix": LATIN_1}, "is not UTF-8"),
        ({"shuffle_seed": -1}, "--seed is -1"),
        ({"shuffle_seed": 2**64}, "--seed is 18446744073709551616"),
        ({"max_rejects": -1}, "--max-rejects is -1"),
        ({"workers": -1}, "--workers is -1"),
        ({"conversations": True, "bos_id": 1}, "--prepend-bos does not go with conversations"),
    ],
)
def test_what_cannot_be_done_is_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        TokenizeRequest(**{"inputs": (Path("a.jsonl"),), "tokenizer": Path("tokenizer"), "prefix": Path("out"), **changes})
