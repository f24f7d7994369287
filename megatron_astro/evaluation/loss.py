"""Mean next-token loss of a model over documents.

Each document is tokenised by itself, with the special tokens its tokenizer puts in front. A document longer than the window is cut into
windows that share one token, so that every token but the document's first is predicted exactly once; the first tokens of later windows
have less to go by. The mean is over tokens, not documents. Documents of fewer than two tokens predict nothing and are left out.
"""

import math
from collections.abc import Iterator, Sequence

from megatron_astro.corpus.jsonl import Corpus
from megatron_astro.corpus_records import Document
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.evaluation.likelihood import score_trees
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.tokenisation import TokenTree, split_texts
from megatron_astro.exam_records import DocumentLoss, LossRecord
from megatron_astro.provenance import current_provenance, file_sha256


def measure_loss(loaded: LoadedModel, corpus: Corpus, *, window: int, batch_size: int) -> LossRecord:
    """Measure the loss (nats per token) over the chosen documents of a corpus, `batch_size` windows a forward pass.

    Raises
    ------
    ConfigError
        The window is not between 2 tokens and what the model sees.
    DataError
        No document has two tokens.
    """
    if not 2 <= window <= loaded.max_positions:
        raise ConfigError(f"window is {window}; give 2 to {loaded.max_positions} tokens, which is what the model sees")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give one window or more")
    documents = list(corpus)
    trees = {document.id: list(_windows(loaded, document, window)) for document in documents}
    flat = [tree for windows in trees.values() for tree in windows]
    if not flat:
        raise DataError(f"{corpus.path} holds no document of two tokens in split {corpus.split!r}; choose other documents")
    scores = iter(score_trees(loaded, flat, batch_size=batch_size, title="loss", unit="windows"))
    by_document = [_document_loss(name, [next(scores)[0] for _ in windows]) for name, windows in trees.items() if windows]
    num_tokens = sum(item.num_tokens for item in by_document)
    loss_sum = math.fsum(item.loss_sum for item in by_document)
    num_bytes = sum(len(document.text.encode()) for document in documents if trees[document.id])
    return LossRecord(
        model=str(loaded.folder),
        weights_sha256=loaded.weights_sha256,
        documents=str(corpus.path),
        documents_sha256=file_sha256(corpus.path),
        num_documents=len(by_document),
        num_tokens=num_tokens,
        loss=loss_sum / num_tokens,
        perplexity=math.exp(loss_sum / num_tokens),
        by_document=tuple(by_document),
        provenance=current_provenance(),
        window=window,
        bits_per_byte=loss_sum / math.log(2) / num_bytes,
        dtype=loaded.dtype_name,
        device=loaded.device.type,
    )


def _windows(loaded: LoadedModel, document: Document, window: int) -> Iterator[TokenTree]:
    ids = split_texts(loaded.tokenizer, document.text, [""])[0].ids
    for start in range(0, len(ids) - 1, window - 1):
        piece = ids[start : start + window]
        yield TokenTree(name=f"document {document.id}", stem=piece[:1], branches=(piece[1:],), first_scored=(0,))


def _document_loss(name: str, windows: Sequence[Sequence[float]]) -> DocumentLoss:
    scores = [score for window in windows for score in window]
    return DocumentLoss(document_id=name, loss_sum=-math.fsum(scores), num_tokens=len(scores))
