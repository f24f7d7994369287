"""One part of a corpus to tokens, by one worker: files in the work folder, complete once the part's record is there.

part_000007.bin          ids of the part's documents, in their order, in the number format of the dataset
part_000007.mask         for conversations: a byte a token, 1 where a loss is taken
part_000007.names        ids of the documents, UTF-8, end to end
part_000007.tables       a `TABLE` row a document
part_000007.json         a `PartRecord`, written last
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from megatron_astro.corpus_records import Conversation, Document
from megatron_astro.data.conversations import ChatEncoder
from megatron_astro.data.corpus_parts import CorpusPart, Row, read_part
from megatron_astro.data.encoder import TextEncoder
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError
from megatron_astro.files import atomic_file
from megatron_astro.records import write_record

TABLE = np.dtype([("tokens", "<i4"), ("line", "<i8"), ("name_bytes", "<i8"), ("name_hash", "<u8")])
CHARACTERS_AT_ONCE = 1 << 22  # in a batch, or one document: what bounds a worker's memory
DOCUMENTS_AT_ONCE = 1024
LONGEST_SEQUENCE = np.iinfo(np.int32).max

Reject = tuple[int, str]


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """How documents become tokens: everything that changes a byte of the parts."""

    tokenizer: Path
    tokenizer_digests: dict[str, str]
    conversations: bool
    split: str
    bos_id: int | None
    eos_id: int | None
    dtype: str


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """What a finished part holds; `rejects` are lines, counted from 1 in the part, with reasons."""

    num_lines: int
    num_documents: int
    num_tokens: int
    num_characters: int
    rejects: tuple[Reject, ...]


def tokenizer_digests(tokenizer: TextTokenizer, chat: ChatEncoder | None) -> dict[str, str]:
    """What of a tokenizer's folder decides the ids of texts, or of conversations, by name."""
    return {"tokenizer": tokenizer.sha256, **(chat.digests() if chat is not None else {})}


def part_file(folder: Path, number: int, ending: str) -> Path:
    """A file of a part in the work folder."""
    return folder / f"part_{number:06d}.{ending}"


@dataclass(frozen=True, kw_only=True)
class PartWorker:
    """Makes, in a worker process, the function that tokenises one numbered part; picklable."""

    settings: TokenizeSettings
    folder: Path

    def __call__(self) -> Callable[[tuple[int, CorpusPart]], PartRecord]:
        """Load the tokenizer; return the function."""
        return self.with_tokenizer(TextTokenizer(self.settings.tokenizer))

    def with_tokenizer(self, tokenizer: TextTokenizer) -> Callable[[tuple[int, CorpusPart]], PartRecord]:
        """The function, with a tokenizer that this process has loaded already."""
        chat = ChatEncoder(tokenizer, self.settings.eos_id) if self.settings.conversations else None
        if tokenizer_digests(tokenizer, chat) != self.settings.tokenizer_digests:
            raise DataError(f"the tokenizer in {tokenizer.folder} changed while this command ran; run it again")
        encode = _documents(tokenizer) if chat is None else _conversations(chat)

        def work(task: tuple[int, CorpusPart]) -> PartRecord:
            number, part = task
            return _PartWriter(self.settings, encode).write(part, self.folder, number)

        return work


@dataclass(frozen=True, eq=False, kw_only=True)
class _Encoded:
    """Tokens of several rows end to end, with their mask where there is one; lengths [rows], and why a row cannot be used (or "")."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    mask: npt.NDArray[np.uint8] | None
    reasons: list[str]


Items = list[Document | Conversation]
Encode = Callable[[Items], _Encoded]


def _documents(tokenizer: TextTokenizer) -> Encode:
    encoder = TextEncoder(tokenizer)

    def encode(items: Items) -> _Encoded:
        ids, lengths = encoder.encode_batch([item.text for item in items if isinstance(item, Document)])
        reasons = ["" if length else "its text makes no tokens" for length in lengths.tolist()]
        return _Encoded(ids=ids, lengths=lengths, mask=None, reasons=reasons)

    return encode


def _conversations(chat: ChatEncoder) -> Encode:
    def encode(items: Items) -> _Encoded:
        all_ids: list[int] = []
        all_mask: list[int] = []
        lengths, reasons = [], []
        for item in items:
            ids, mask, reason = _encode_one(chat, item)
            all_ids += ids
            all_mask += mask
            lengths.append(len(ids))
            reasons.append(reason)
        return _Encoded(
            ids=np.array(all_ids, np.int32),
            lengths=np.array(lengths, np.int64),
            mask=np.array(all_mask, np.uint8),
            reasons=reasons,
        )

    return encode


def _encode_one(chat: ChatEncoder, item: Document | Conversation) -> tuple[list[int], list[int], str]:
    if isinstance(item, Document):
        return [], [], "not a Conversation"
    try:
        return *chat.encode(item.messages), ""
    except DataError as error:
        return [], [], str(error)


class _PartWriter:
    """Writes the files of one part."""

    def __init__(self, settings: TokenizeSettings, encode: Encode) -> None:
        self._settings = settings
        self._encode = encode
        self._dtype = np.dtype(settings.dtype)
        self._tables: list[npt.NDArray[np.void]] = []
        self._rejects: list[Reject] = []
        self._num_lines = self._num_tokens = self._num_characters = 0

    def write(self, part: CorpusPart, folder: Path, number: int) -> PartRecord:
        endings = ("tables", "names", "mask", "bin")
        with ExitStack() as files:
            partial = {ending: files.enter_context(atomic_file(part_file(folder, number, ending))) for ending in endings}
            with partial["bin"].open("wb") as ids, partial["mask"].open("wb") as mask, partial["names"].open("wb") as names:
                for rows in self._batches(part):
                    self._write_rows(rows, ids, mask, names)
            partial["tables"].write_bytes(np.concatenate([np.empty(0, TABLE), *self._tables]).tobytes())
        record = PartRecord(
            num_lines=self._num_lines,
            num_documents=sum(table.size for table in self._tables),
            num_tokens=self._num_tokens,
            num_characters=self._num_characters,
            rejects=tuple(sorted(self._rejects)),
        )
        write_record(part_file(folder, number, "json"), record)
        return record

    def _batches(self, part: CorpusPart) -> Iterator[list[Row[Document] | Row[Conversation]]]:
        """The rows of the chosen split that hold something, a bounded number of characters at a time; rejects are noted."""
        batch: list[Row[Document] | Row[Conversation]] = []
        size = 0
        rows: Iterator[Row[Document] | Row[Conversation]]
        rows = read_part(part, Conversation) if self._settings.conversations else read_part(part, Document)
        for row in rows:
            self._num_lines = row.line
            if row.reason:
                self._rejects.append((row.line, row.reason))
            if row.item is None or self._settings.split not in ("all", row.item.split):
                continue
            batch.append(row)
            size += _num_characters(row.item)
            if size >= CHARACTERS_AT_ONCE or len(batch) == DOCUMENTS_AT_ONCE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _write_rows(self, rows: list[Row[Document] | Row[Conversation]], ids: BinaryIO, mask: BinaryIO, names: BinaryIO) -> None:
        items: Items = [row.item for row in rows if row.item is not None]
        encoded = self._encode(items)
        kept: list[tuple[int, int, int, int]] = []
        values, masks = iter(np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1])), _split(encoded)
        for row, item, reason in zip(rows, items, encoded.reasons, strict=True):
            tokens, taken = next(values), next(masks)
            full, full_mask = self._framed(tokens, taken)
            reason = reason or ("" if full.size <= LONGEST_SEQUENCE else f"{full.size} tokens; split the document")
            if reason:
                self._rejects.append((row.line, reason))
                continue
            ids.write(full.astype(self._dtype).tobytes())
            mask.write(full_mask.tobytes())
            name = item.id.encode()
            names.write(name)
            kept.append((full.size, row.line, len(name), _hash(name)))
            self._num_tokens += full.size
            self._num_characters += _num_characters(item)
        self._tables.append(np.array(kept, TABLE))

    def _framed(
        self, tokens: npt.NDArray[np.int32], mask: npt.NDArray[np.uint8] | None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """A document with the tokens around it that were asked for; a conversation has them already."""
        if mask is not None:
            return tokens, mask
        before = [] if self._settings.bos_id is None else [self._settings.bos_id]
        after = [] if self._settings.eos_id is None else [self._settings.eos_id]
        if before or after:
            tokens = np.concatenate([np.array(before, np.int32), tokens, np.array(after, np.int32)])
        return tokens, np.empty(0, np.uint8)


def _split(encoded: _Encoded) -> Iterator[npt.NDArray[np.uint8] | None]:
    if encoded.mask is None:
        return iter([None] * len(encoded.reasons))
    return iter(np.split(encoded.mask, np.cumsum(encoded.lengths)[:-1]))


def _num_characters(item: Document | Conversation) -> int:
    return len(item.text) if isinstance(item, Document) else sum(len(message.content) for message in item.messages)


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
