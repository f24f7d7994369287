"""Reading a corpus: a JSONL file of documents, checked whole before the first one is used."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_astro.corpus_records import Document
from megatron_astro.errors import DataError
from megatron_astro.records import read_lines

SplitChoice = Literal["train", "heldout", "all"]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A checked corpus file and the part of it that was chosen; iterate over it for the documents, in file order, again and again."""

    path: Path
    split: SplitChoice
    num_documents: int
    num_characters: int

    def __iter__(self) -> Iterator[Document]:
        return (document for document in read_lines(self.path, Document) if self.split in ("all", document.split))


def open_corpus(path: Path, split: SplitChoice = "all") -> Corpus:
    """Read a corpus once from end to end and count the chosen documents.

    Raises
    ------
    DataError
        The file cannot be read, is not UTF-8, holds a line that is no document, an empty text, an id twice (all with the line's
        number), or no document of that split.
    """
    first_lines: dict[str, int] = {}
    num_documents = num_characters = 0
    for number, document in enumerate(read_lines(path, Document), start=1):
        where = f"{path}, document {number} (id {document.id!r})"
        if not document.id:
            raise DataError(f"{path}, document {number}: the id is empty; give every document an id of its own")
        if document.id in first_lines:
            raise DataError(f"{where}: document {first_lines[document.id]} has the same id; give every document an id of its own")
        if not document.text.strip():
            raise DataError(f"{where}: the text is empty; remove the document or give it a text")
        first_lines[document.id] = number
        if split in ("all", document.split):
            num_documents += 1
            num_characters += len(document.text)
    if not first_lines:
        raise DataError(f"{path} holds no documents; write one JSON object with id and text on each line")
    if num_documents == 0:
        raise DataError(f"{path} holds {len(first_lines)} documents, none of split {split!r}; choose another split")
    return Corpus(path=path, split=split, num_documents=num_documents, num_characters=num_characters)
