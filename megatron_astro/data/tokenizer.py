"""The tokenizer of a Hugging Face folder: its `tokenizer.json` read with the `tokenizers` library, or else its `tokenizer.model`.

No token is added that was not asked for: the template that a LLaMA tokenizer adds its BOS with is not applied.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from tokenizers import Tokenizer

from megatron_astro._data import Encoder
from megatron_astro.data.collection import collection_held
from megatron_astro.data.encoder_tables import build_encoder
from megatron_astro.data.sentencepiece_model import SentencePieceModel
from megatron_astro.errors import DataError

TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"


class _HuggingFaceModel:
    """A `tokenizer.json` in the `tokenizers` library."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content
        with collection_held():
            self._parsed: dict[str, Any] | None = _parse_object(path, content)
        with TokenizersErrors(path):
            self._tokenizer = Tokenizer.from_str(content.decode())
        self._tokenizer.no_truncation()  # a tokenizer.json may carry both settings, and both would falsify documents
        self._tokenizer.no_padding()

    def vocabulary(self) -> Mapping[str, int]:
        tokens = (self._parsed or {}).get("model", {}).get("vocab")
        if not isinstance(tokens, dict):
            return self._tokenizer.get_vocab(with_added_tokens=True)
        # What the library would copy out one by one, slowly.
        return tokens | {token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def added_tokens(self) -> tuple[str, ...]:
        return tuple(token.content for token in self._tokenizer.get_added_tokens_decoder().values())

    def special_id(self, _kind: str) -> int | None:
        return None  # the folder's other files name them

    def build_encoder(self) -> Encoder:
        content, self._parsed = self._parsed, None  # it is large, and not needed again
        return build_encoder(msgspec.json.decode(self._content) if content is None else content)


class TextTokenizer:
    """Text to token ids and back, with the ids that mark a text's beginning and end (None where the folder names none)."""

    def __init__(self, folder: Path) -> None:
        path, content = _read_tokenizer_file(folder)
        self._model: _HuggingFaceModel | SentencePieceModel
        self._model = SentencePieceModel(content, str(path)) if path.name == MODEL_FILE else _HuggingFaceModel(path, content)
        self.folder = folder
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._vocabulary = self._model.vocabulary()
        self.vocabulary_size = max(self._vocabulary.values(), default=-1) + 1
        if self.vocabulary_size == 0:
            raise DataError(f"{path} has an empty vocabulary; copy the model's own tokenizer.json there")
        self.bos_id = self._special_id("bos")
        self.eos_id = self._special_id("eos")

    def encode(self, text: str) -> list[int]:
        """Ids of one text, with no special token added."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, by the library the tokenizer was made for: what `encoder.TextEncoder` is held against."""
        return self._model.encode_batch(texts)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of one text, and from which to before which character of it each stands for."""
        if isinstance(self._model, SentencePieceModel):
            raise DataError(
                f"{self.folder} has a {MODEL_FILE} alone, which does not say where tokens are in a text; save the tokenizer with "
                f"transformers, which writes a {TOKENIZER_FILE}"
            )
        return self._model.encode_with_offsets(text)

    def build_encoder(self) -> Encoder:
        """The compiled encoder of this tokenizer, unproven; UnknownTokenizerError where it has parts that one does not know."""
        with collection_held():
            return self._model.build_encoder()

    def vocabulary(self) -> Mapping[str, int]:
        """Every token, added ones included, and its id."""
        return self._vocabulary

    def added_tokens(self) -> tuple[str, ...]:
        """The texts that are one token wherever they stand, such as `<|im_end|>`."""
        return self._model.added_tokens()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens shown."""
        return self._model.decode(ids)

    def token_id(self, token: str) -> int:
        """The id of a token given by its text, such as `<|endoftext|>`; DataError if the vocabulary has no such token."""
        number = self._vocabulary.get(token)
        if number is None:
            raise DataError(f"the tokenizer in {self.folder} has no token {token!r}; name one of its vocabulary")
        return number

    def begin_of_document(self) -> int:
        """The id to open documents with: that of the folder's begin-of-sequence token."""
        if self.bos_id is None:
            raise DataError(f"no file in {self.folder} names a begin-of-sequence token; prepend none")
        return self.bos_id

    def end_of_document(self, token: str = "") -> int:
        """The id to close documents with: that of `token`, or, where it is empty, of the folder's end-of-sequence token."""
        if token:
            return self.token_id(token)
        if self.eos_id is None:
            raise DataError(f"no file in {self.folder} names an end-of-sequence token; name the token to append, or append none")
        return self.eos_id

    def _special_id(self, kind: str) -> int | None:
        """The id of the bos or eos token: by its text in tokenizer_config.json, else by number in the model's configurations."""
        named = read_config(self.folder / "tokenizer_config.json").get(f"{kind}_token")
        token = named.get("content") if isinstance(named, dict) else named
        if isinstance(token, str):
            return self.token_id(token)
        for name in ("generation_config.json", "config.json"):
            value = read_config(self.folder / name).get(f"{kind}_token_id")
            number = value[0] if isinstance(value, list) and value else value
            if isinstance(number, int):
                return self._checked_id(number, f"{self.folder / name}: {kind}_token_id")
        return self._model.special_id(kind)

    def _checked_id(self, number: int, where: str) -> int:
        if not 0 <= number < self.vocabulary_size:
            raise DataError(
                f"{where} is {number}, but the tokenizer's ids run from 0 to {self.vocabulary_size - 1}; correct the file"
            )
        return number


class TokenizersErrors:
    """Turn what the `tokenizers` library raises on a bad file, a bare Exception or a Rust panic, into a DataError; nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is Exception or (kind is not None and kind.__module__ == "pyo3_runtime"):
            raise DataError(f"{self._path} is not a tokenizer: {error}; copy the model's own tokenizer.json there") from error


def _read_tokenizer_file(folder: Path) -> tuple[Path, bytes]:
    """The folder's tokenizer.json, or its tokenizer.model where it has no other."""
    path = folder / TOKENIZER_FILE
    if not path.exists() and (folder / MODEL_FILE).exists():
        path = folder / MODEL_FILE
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; name a Hugging Face folder with a {TOKENIZER_FILE} "
            f"(transformers writes one when it saves a fast tokenizer) or a {MODEL_FILE}"
        ) from error


def read_config(path: Path) -> dict[str, object]:
    """A JSON object of the folder; empty where there is no such file."""
    return _parse_object(path, path.read_bytes()) if path.exists() else {}


def _parse_object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        parsed = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; copy the model's own file there") from error
    if not isinstance(parsed, dict):
        raise DataError(f"{path} holds a {type(parsed).__name__}, not an object; copy the model's own file there")
    return parsed
