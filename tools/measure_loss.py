"""Measure a model's next-token loss on documents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class MeasureLossOptions:
    """Measure a Hugging Face model's mean next-token loss (nats per token) on the documents of a corpus and write it as JSON."""

    model: Annotated[Path, Positional]
    """Hugging Face folder of the model."""
    documents: Path
    """JSONL file with id and text on each line."""
    output: Path
    """JSON file to write."""
    split: Literal["train", "heldout", "all"] = "heldout"
    """Which documents to take, by their field split."""
    window: int | None = None
    """Tokens the model sees at once, longer documents being cut; none: all it can see, at most 2048."""
    batch_size: int = 8
    """Windows a forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format to compute in; auto: float32 on a CPU, bfloat16 on a GPU."""


def measure(options: MeasureLossOptions) -> str:
    """Check the documents, load the model, measure, write."""
    from megatron_astro.corpus.jsonl import open_corpus
    from megatron_astro.evaluation.loss import measure_loss
    from megatron_astro.evaluation.model import load_model
    from megatron_astro.files import require_writable_file
    from megatron_astro.parallel.memory import keep_freed_memory
    from megatron_astro.records import write_record

    require_writable_file(options.output, options.documents)
    corpus = open_corpus(options.documents, options.split)
    keep_freed_memory()
    loaded = load_model(options.model, options.device, options.dtype)
    window = min(2048, loaded.max_positions) if options.window is None else options.window
    record = measure_loss(loaded, corpus, window=window, batch_size=options.batch_size)
    write_record(options.output, record)
    return (
        f"Loss {record.loss:.4f} nats per token (perplexity {record.perplexity:.2f}, {record.bits_per_byte:.3f} bits per byte) over "
        f"{record.num_tokens} tokens of {record.num_documents} documents. Wrote {options.output}."
    )


if __name__ == "__main__":
    run_command(MeasureLossOptions, measure)
