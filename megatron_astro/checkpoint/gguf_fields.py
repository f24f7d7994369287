"""The metadata of a GGUF file: every field by its name, those we use checked to be of the kind they must be."""

from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from megatron_astro.errors import CheckpointError

if TYPE_CHECKING:
    from gguf import GGUFReader

COUNT = (Annotated[int, msgspec.Meta(gt=0)], "one whole number above zero")
ABOVE_ZERO = (Annotated[float, msgspec.Meta(gt=0)], "one number above zero")
TOKEN_ID = (Annotated[int, msgspec.Meta(ge=0)], "the id of a token")
YES_OR_NO = (bool, "true or false")
TEXT = (str, "text")
TEXTS = (list[str], "a list of texts")
NUMBERS = (list[float], "a list of numbers")
# Those that are read, with what they must be.
KINDS: dict[str, tuple[Any, str]] = {
    "general.architecture": TEXT,
    "llama.attention.head_count": COUNT,
    "llama.attention.head_count_kv": COUNT,
    "llama.attention.key_length": COUNT,
    "llama.attention.layer_norm_rms_epsilon": ABOVE_ZERO,
    "llama.block_count": COUNT,
    "llama.context_length": COUNT,
    "llama.embedding_length": COUNT,
    "llama.feed_forward_length": COUNT,
    "llama.rope.freq_base": ABOVE_ZERO,
    "tokenizer.chat_template": TEXT,
    "tokenizer.ggml.add_bos_token": YES_OR_NO,
    "tokenizer.ggml.add_space_prefix": YES_OR_NO,
    "tokenizer.ggml.bos_token_id": TOKEN_ID,
    "tokenizer.ggml.eos_token_id": TOKEN_ID,
    "tokenizer.ggml.merges": TEXTS,
    "tokenizer.ggml.model": TEXT,
    "tokenizer.ggml.padding_token_id": TOKEN_ID,
    "tokenizer.ggml.pre": TEXT,
    "tokenizer.ggml.scores": NUMBERS,
    "tokenizer.ggml.token_type": NUMBERS,
    "tokenizer.ggml.tokens": TEXTS,
    "tokenizer.ggml.unknown_token_id": TOKEN_ID,
}


def read_fields(path: Path, reader: "GGUFReader") -> dict[str, Any]:
    """All metadata of an opened file; CheckpointError for a field of another kind than it must be, or text that is not UTF-8."""
    return {name: _checked(path, name, _contents(path, name, field)) for name, field in reader.fields.items()}


def _contents(path: Path, name: str, field: Any) -> Any:
    try:
        return field.contents()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: {name} holds text that is not UTF-8 ({error.reason}); fetch the file again") from error


def _checked(path: Path, name: str, value: Any) -> Any:
    if name not in KINDS:
        return value
    kind, words = KINDS[name]
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: {name} is {shortened(value)}, where {words} belongs; get a sound file") from error
