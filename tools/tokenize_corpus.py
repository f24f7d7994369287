"""Tokenise a corpus into an indexed dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """Tokenise a corpus (JSONL, a document a line) into a Megatron dataset: OUTPUT.bin, OUTPUT.idx and a sidecar OUTPUT.json."""

    corpus: Annotated[Path, Positional]
    """JSONL file with id and text on each line."""
    tokenizer: Path
    """Hugging Face folder whose tokenizer.json to use."""
    output: Path
    """Path of the dataset to write, without ending; it must not exist yet."""
    split: Literal["train", "heldout", "all"] = "train"
    """Which documents to take, by their field split."""
    append_eod: bool = True
    """Whether to append an end-of-document token to each document."""
    eod_token: str = ""
    """Text of the end-of-document token; empty: the tokenizer's end-of-sequence token."""


def tokenize_corpus(options: TokenizeOptions) -> str:
    """Check the corpus whole, then write the dataset."""
    from megatron_astro.corpus.jsonl import open_corpus
    from megatron_astro.data.tokenize import DocumentSource, write_dataset
    from megatron_astro.data.tokenizer import TextTokenizer

    corpus = open_corpus(options.corpus, options.split)
    tokenizer = TextTokenizer(options.tokenizer)
    eod_id = tokenizer.end_of_document(options.eod_token) if options.append_eod else None
    source = DocumentSource(path=options.corpus, split=options.split, num_documents=corpus.num_documents)
    record = write_dataset(corpus, source, tokenizer, options.output, eod_id=eod_id)
    characters_per_token = corpus.num_characters / record.num_tokens
    return (
        f"Wrote {options.output}.bin, .idx and .json: {record.num_documents} documents, {record.num_tokens} tokens "
        f"({characters_per_token:.2f} characters a token)."
    )


if __name__ == "__main__":
    run_command(TokenizeOptions, tokenize_corpus)
