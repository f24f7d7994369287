"""Tokenise a corpus into an indexed dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """Tokenise documents or conversations into a Megatron dataset: OUTPUT.bin, .idx, .ids and a sidecar .json."""

    corpus: Annotated[tuple[Path, ...], Positional]
    """JSONL (plain or .gz) or Parquet files with id and text, or messages, on each line."""
    tokenizer: Path
    """Hugging Face folder whose tokenizer.json, or else tokenizer.model, to use."""
    output: Path
    """Path of the dataset to write, without ending; it must not exist yet. A stopped run goes on when it is run again."""
    content: Literal["documents", "conversations"] = "documents"
    """What a line holds; conversations get a loss mask beside, OUTPUT_mask.bin and .idx."""
    split: Literal["train", "heldout", "all"] = "train"
    """Which documents to take, by their field split."""
    prepend_bos: bool = False
    """Whether to put the begin-of-sequence token before each document."""
    append_eod: bool = True
    """Whether to end each document with an end-of-document token, and each conversation that its template does not end in it."""
    eod_token: str = ""
    """Text of the end-of-document token; empty: the tokenizer's end-of-sequence token."""
    shuffle: Literal["none", "documents"] = "none"
    """Order to write documents in: that of the inputs, or shuffled by the seed."""
    seed: int = 0
    """Seed of the shuffle, 0 to 2^64 - 1."""
    max_rejects: int = 0
    """Malformed lines to leave out at most; with more there is no dataset. OUTPUT.rejects.jsonl lists them."""
    workers: int = 0
    """Processes to tokenise with; 0: one a core. The dataset is the same whatever their number."""


def tokenize_corpus(options: TokenizeOptions) -> str:
    """Write the dataset and say what is in it."""
    from megatron_astro.data.tokenize import write_dataset
    from megatron_astro.data.tokenize_request import TokenizeRequest, require_effect
    from megatron_astro.data.tokenizer import TextTokenizer

    require_effect(seed=options.seed, shuffle=options.shuffle, eod_token=options.eod_token, append_eod=options.append_eod)
    names = TextTokenizer(options.tokenizer)
    bos_id = names.begin_of_document() if options.prepend_bos else None
    eos_id = names.end_of_document(options.eod_token) if options.append_eod else None
    request = TokenizeRequest(
        inputs=options.corpus, tokenizer=options.tokenizer, prefix=options.output, conversations=options.content == "conversations",
        split=options.split, bos_id=bos_id, eos_id=eos_id, shuffle_seed=options.seed if options.shuffle == "documents" else None,
        max_rejects=options.max_rejects, workers=options.workers,
    )  # fmt: skip
    return f"Wrote {options.output}.bin, .idx, .ids and .json: {write_dataset(request).summary()}."


if __name__ == "__main__":
    run_command(TokenizeOptions, tokenize_corpus)
