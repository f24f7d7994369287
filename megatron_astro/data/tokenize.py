"""Documents to an indexed dataset: PREFIX.bin, PREFIX.idx and the sidecar PREFIX.json, which appear together or not at all."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from megatron_astro.corpus_records import DatasetRecord, Document
from megatron_astro.data.indexed import dataset_file, token_dtype
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import atomic_file
from megatron_astro.progress import track
from megatron_astro.provenance import current_provenance, file_sha256
from megatron_astro.records import read_record, to_plain

logger = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 64  # enough to keep all cores of the tokenizer busy, little enough to report progress often


@dataclass(frozen=True, kw_only=True)
class DocumentSource:
    """Where documents come from: the corpus file, which part of it, and how many documents that is."""

    path: Path
    split: str
    num_documents: int


def write_dataset(
    documents: Iterable[Document], source: DocumentSource, tokenizer: TextTokenizer, prefix: Path, *, eod_id: int | None
) -> DatasetRecord:
    """Tokenise documents, in their order, into a new indexed dataset.

    Parameters
    ----------
    documents
        The texts; their ids go into the sidecar.
    source
        What the sidecar says about their origin.
    prefix
        Path of the dataset without its endings; it must not exist yet.
    eod_id
        Token appended to every document to mark its end; None appends nothing.

    Raises
    ------
    ConfigError
        The dataset exists already, or its folder cannot be written to.
    DataError
        A document makes no tokens, there are none, or the disk is full.
    """
    idx, sidecar, ids = (dataset_file(prefix, ending) for ending in ("idx", "json", "bin"))
    if idx.exists():
        raise ConfigError(f"{idx} exists already; name another output or remove the dataset first")
    _require_own_sidecar(sidecar)
    try:
        with ExitStack() as files:  # left in reverse order: the .idx, which makes the dataset complete, appears last
            idx_partial, sidecar_partial, ids_partial = (files.enter_context(atomic_file(path)) for path in (idx, sidecar, ids))
            with IndexedWriter(ids_partial, idx_partial, token_dtype(tokenizer.vocabulary_size)) as writer:
                names = _write_documents(writer, documents, source, tokenizer, eod_id)
            record = _describe(writer, source, tokenizer, eod_id, names)
            sidecar_partial.write_text(json.dumps(to_plain(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {prefix}: {error.strerror}; free the disk or name another output") from error
    return record


def _require_own_sidecar(sidecar: Path) -> None:
    """A `.json` of that name may be there only if an interrupted run of ours left it: it could be the corpus itself."""
    if sidecar.exists():
        try:
            read_record(sidecar, DatasetRecord)
        except DataError as error:
            raise ConfigError(
                f"{sidecar} exists and describes no dataset; it would be overwritten: name another output"
            ) from error


def _write_documents(
    writer: IndexedWriter, documents: Iterable[Document], source: DocumentSource, tokenizer: TextTokenizer, eod_id: int | None
) -> tuple[str, ...]:
    names = []
    end = [] if eod_id is None else [eod_id]
    encoded = _encode(documents, tokenizer)
    for name, ids in track(encoded, total=source.num_documents, title="Tokenising", unit="documents", logger=logger):
        if not ids:
            raise DataError(f"{source.path}, document {name!r}: its text makes no tokens; remove the document or give it a text")
        writer.add_document(ids + end)
        names.append(name)
    if not names:
        raise DataError(f"{source.path} holds no documents of split {source.split!r}; choose another split or another file")
    return tuple(names)


def _encode(documents: Iterable[Document], tokenizer: TextTokenizer) -> Iterator[tuple[str, list[int]]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, DOCUMENTS_AT_ONCE)):
        ids = tokenizer.encode_batch([document.text for document in batch])
        yield from zip((document.id for document in batch), ids, strict=True)


def _describe(
    writer: IndexedWriter, source: DocumentSource, tokenizer: TextTokenizer, eod_id: int | None, names: tuple[str, ...]
) -> DatasetRecord:
    return DatasetRecord(
        tokenizer=str(tokenizer.folder),
        tokenizer_sha256=tokenizer.sha256,
        vocabulary_size=tokenizer.vocabulary_size,
        num_documents=writer.num_documents,
        num_tokens=writer.num_tokens,
        dtype=writer.dtype.name,
        lowest_id=writer.lowest_id,
        highest_id=writer.highest_id,
        append_eod=eod_id is not None,
        eod_id=eod_id,
        documents=str(source.path),
        documents_sha256=file_sha256(source.path),
        split=source.split,
        bin_sha256=writer.bin_sha256,
        idx_sha256=writer.idx_sha256,
        provenance=current_provenance(),
        document_ids=names,
    )
