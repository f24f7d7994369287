"""Log-probabilities of continuations: the one place that runs the model.

A tree (a stem and its branches) is one row of one forward pass. Its tokens are laid side by side, stem first; each branch sees the stem
and itself, not its siblings, and its positions go on from the stem's, so every score is what the branch alone would get. A branch's last
token is not fed: nothing follows it. What all stems begin with (worked examples) is computed once, and all rows share its keys and values.
Only positions that predict something reach the output matrix, and the softmax is computed in float32.

Shapes: b trees in a batch, s tokens of the longest row, p shared prefix, n predicting positions, t scored tokens, h hidden, v vocabulary.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from megatron_astro.errors import CheckpointError, DataError
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.tokenisation import TokenTree, common_prefix_length
from megatron_astro.progress import track

logger = logging.getLogger(__name__)

STEM = 0  # segment number of stem tokens; branch k has segment k + 1
LEAST_SHARED_TOKENS = 32  # below this, computing a prefix again is cheaper than joining it to every row's keys
LOGITS_AT_ONCE = 2**24  # predicting positions times vocabulary in one piece: 64 MB of float32

BranchScores = tuple[tuple[float, ...], ...]
"""For each branch of a tree the log-probability (nats) of each of its scored tokens."""
KeysAndValues = list[tuple[Tensor, Tensor]]
"""Keys and values [1, heads, p, head size] of the shared prefix, layer by layer; empty where nothing is shared."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A tree laid out for one forward pass, without the shared prefix."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    first_predicting: int
    """Index of the stem's last token; it and all that follow predict something."""
    sources: tuple[tuple[int, ...], ...]
    """For each branch and each of its scored tokens, the index of the token that predicts it."""
    targets: tuple[tuple[int, ...], ...]
    """For each branch, its scored tokens."""


def score_trees(loaded: LoadedModel, trees: Sequence[TokenTree], *, batch_size: int, title: str, unit: str) -> list[BranchScores]:
    """Score every tree, in the order given; rows of like length share a batch, so the work is done in another order.

    Raises
    ------
    DataError
        A tree holds a token that the model's vocabulary does not have, or is longer than the model can see.
    """
    for tree in trees:
        _require_fitting(loaded, tree)
    shared = _shared_prefix_length(trees)
    rows = [lay_out(tree, shared) for tree in trees]
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].tokens))  # longest first: too large a batch fails at once
    scores: dict[int, BranchScores] = {}
    with torch.inference_mode():
        prefix = _prefix_keys_and_values(loaded, trees[0].stem[:shared])
        scored = _score_in_batches(loaded, [rows[index] for index in order], prefix, batch_size)
        for index, score in zip(order, track(scored, total=len(rows), title=title, unit=unit, logger=logger), strict=True):
            scores[index] = score
    return [scores[index] for index in range(len(rows))]


def lay_out(tree: TokenTree, shared: int = 0) -> Row:
    """Lay a tree's tokens side by side, leaving out the first `shared` tokens of the stem."""
    stem = tree.stem[shared:]
    tokens, positions, segments = list(stem), list(range(shared, len(tree.stem))), [STEM] * len(stem)
    sources: list[tuple[int, ...]] = []
    targets: list[tuple[int, ...]] = []
    for number, (branch, first) in enumerate(zip(tree.branches, tree.first_scored, strict=True), start=1):
        predicting = (len(stem) - 1, *range(len(tokens), len(tokens) + len(branch) - 1))
        sources.append(predicting[first:])
        targets.append(branch[first:])
        tokens += branch[:-1]
        positions += range(len(tree.stem), len(tree.stem) + len(branch) - 1)
        segments += [number] * (len(branch) - 1)
    return Row(
        tokens=tuple(tokens),
        positions=tuple(positions),
        segments=tuple(segments),
        first_predicting=len(stem) - 1,
        sources=tuple(sources),
        targets=tuple(targets),
    )


def _require_fitting(loaded: LoadedModel, tree: TokenTree) -> None:
    """Check that the model has every token of a tree and can see its longest branch whole."""
    vocabulary_size = loaded.output_weight.shape[0]
    highest = max(max(row) for row in (tree.stem, *tree.branches) if row)
    if highest >= vocabulary_size:
        raise DataError(
            f"{tree.name}: the tokenizer in {loaded.folder} gives token {highest}, but the model's tokens run from 0 to "
            f"{vocabulary_size - 1}; use the model's own tokenizer"
        )
    length = len(tree.stem) + max(len(branch) for branch in tree.branches)
    if length > loaded.max_positions:
        raise DataError(
            f"{tree.name} is {length} tokens long with all that stands before it, and the model sees {loaded.max_positions}; "
            "show fewer worked examples, or a shorter text"
        )


def _shared_prefix_length(trees: Sequence[TokenTree]) -> int:
    """Tokens that all stems begin with, at least one being left to each stem; 0 where sharing would not pay."""
    shared = min(common_prefix_length([tree.stem for tree in trees]), min(len(tree.stem) for tree in trees) - 1)
    return shared if len(trees) > 1 and shared >= LEAST_SHARED_TOKENS else 0


def _prefix_keys_and_values(loaded: LoadedModel, tokens: tuple[int, ...]) -> KeysAndValues:
    if not tokens:
        return []
    cache = DynamicCache()
    loaded.network(torch.tensor([tokens], device=loaded.device), past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _score_in_batches(loaded: LoadedModel, rows: Sequence[Row], prefix: KeysAndValues, batch_size: int) -> Iterator[BranchScores]:
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        hidden = _last_hidden_states(loaded, batch, prefix)
        predicting = torch.cat([hidden[index, row.first_predicting : len(row.tokens)] for index, row in enumerate(batch)])
        sources, targets = _flatten(batch)
        log_probabilities = iter(_log_probabilities(predicting, loaded.output_weight, sources, targets))
        for row in batch:
            yield tuple(tuple(next(log_probabilities) for _ in branch) for branch in row.targets)


def _last_hidden_states(loaded: LoadedModel, batch: Sequence[Row], prefix: KeysAndValues) -> Tensor:
    """[b, s, h]; rows are filled up at their end, where causality keeps the filling from being seen."""
    length = max(len(row.tokens) for row in batch)
    tokens, positions = torch.zeros(2, len(batch), length, dtype=torch.int64)
    for index, row in enumerate(batch):
        filling = range(row.positions[-1] + 1, row.positions[-1] + 1 + length - len(row.tokens))
        tokens[index, : len(row.tokens)] = torch.tensor(row.tokens)
        positions[index] = torch.tensor([*row.positions, *filling])
    mask = visible_tokens(batch, length, prefix[0][0].shape[2] if prefix else 0)
    cache = DynamicCache(
        [(keys.expand(len(batch), -1, -1, -1), values.expand(len(batch), -1, -1, -1)) for keys, values in prefix]
    )
    output = loaded.network(
        tokens.to(loaded.device),
        position_ids=positions.to(loaded.device),
        attention_mask=None if mask is None else mask.to(loaded.device),
        past_key_values=cache if prefix else None,
        use_cache=bool(prefix),
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def visible_tokens(batch: Sequence[Row], length: int, shared: int) -> Tensor | None:
    """Which tokens each token sees, [b, 1, s, p + s]; None where every row is a plain sequence, which causality alone describes."""
    if all(max(row.segments) <= STEM + 1 for row in batch):
        return None
    segments = torch.full((len(batch), length), STEM)
    for index, row in enumerate(batch):
        segments[index, : len(row.segments)] = torch.tensor(row.segments)
    seen, seeing = segments[:, None, None, :], segments[:, None, :, None]
    visible = torch.ones(length, length, dtype=torch.bool).tril() & ((seen == STEM) | (seen == seeing))
    prefix = torch.ones(1, dtype=torch.bool).expand(len(batch), 1, length, shared)
    return torch.cat([prefix, visible], dim=-1)


def _flatten(batch: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Sources, counted over the batch's predicting positions, and targets: both [t]."""
    sources: list[int] = []
    targets: list[int] = []
    start = 0
    for row in batch:
        sources += [start + source - row.first_predicting for branch in row.sources for source in branch]
        targets += [target for branch in row.targets for target in branch]
        start += len(row.tokens) - row.first_predicting
    return torch.tensor(sources), torch.tensor(targets)


def _log_probabilities(hidden: Tensor, output_weight: Tensor, sources: Tensor, targets: Tensor) -> list[float]:
    """Log-probabilities [t] of `targets` given hidden states [n, h] at `sources`; the n x v logits exist in pieces only."""
    piece = max(1, LOGITS_AT_ONCE // output_weight.shape[0])
    scores = torch.empty(len(targets))
    for start in range(0, len(hidden), piece):
        logits = hidden[start : start + piece].float() @ output_weight.T
        chosen = ((sources >= start) & (sources < start + piece)).nonzero().squeeze(1)
        where, what = (sources[chosen] - start).to(logits.device), targets[chosen].to(logits.device)
        scores[chosen] = (logits[where, what] - logits.logsumexp(dim=-1)[where]).cpu()
    if not bool(scores.isfinite().all()):
        raise CheckpointError("the model's output is not finite; its weights are damaged or overflow in this number format")
    values: list[float] = scores.tolist()
    return values
