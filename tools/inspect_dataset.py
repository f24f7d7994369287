"""Check an indexed dataset and show what is in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Check a Megatron dataset (index, sizes, and digests where it has a sidecar) and show its statistics."""

    prefix: Annotated[Path, Positional]
    """Path of the dataset, without .bin/.idx."""
    tokenizer: Path | None = None
    """Hugging Face folder the dataset was tokenised with; needed to show documents."""
    show: int = 0
    """How many documents to show as text, from the first on."""


def inspect_dataset(options: InspectOptions) -> str:
    """Verify, print statistics, print documents."""
    from megatron_astro.data.inspect import decode_documents, length_statistics, verify_dataset
    from megatron_astro.data.tokenizer import TextTokenizer
    from megatron_astro.errors import ConfigError

    if options.show < 0:
        raise ConfigError(f"--show is {options.show}; give zero or more documents")
    if options.show and options.tokenizer is None:
        raise ConfigError(f"--show is {options.show}, but no --tokenizer is given to turn ids into text; name its folder")
    dataset = verify_dataset(options.prefix)
    tokens, record = dataset.tokens, dataset.record
    print(f"{options.prefix}: {tokens.num_documents} documents, {tokens.num_tokens} tokens as {tokens.ids.dtype.name}")
    print(f"ids from {dataset.lowest_id} to {dataset.highest_id}")
    if dataset.num_labels is not None:
        print(f"loss taken on {dataset.num_labels} of {tokens.num_tokens} tokens, by its loss mask")
    if record is not None:
        print(
            f"made from {record.documents} (split {record.split}) with {record.tokenizer}, BOS {record.bos_id}, EOD {record.eod_id}, "
            f"shuffle seed {record.shuffle_seed}"
        )
    print(length_statistics(tokens.document_lengths()))
    if options.tokenizer is not None:
        for document in decode_documents(dataset, TextTokenizer(options.tokenizer), options.show):
            print(f"\n--- {document.document_id} ({document.num_tokens} tokens)\n{document.text}")
    proof = "index, sizes and checksums agree" if record is not None else "index and sizes agree (no sidecar, so no checksums)"
    return f"{options.prefix} is whole: {proof}."


if __name__ == "__main__":
    run_command(InspectOptions, inspect_dataset)
