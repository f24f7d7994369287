"""Samples of several documents that do not see each other: where each starts, as cumulative lengths, never as an s x s mask.

Shapes: b samples, s tokens in each, without the one more that is only a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentStarts:
    """What a model needs to know of a batch's documents: loss_mask [b, s] float32, position_ids [b, s] int64, cu_seqlens."""

    loss_mask: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor | None
    """Token of the flattened batch at which each document starts, and the end, [documents + 1] int32."""


def document_starts(lengths: Sequence[Sequence[int]]) -> DocumentStarts:
    """Positions from 0 in every document, and no loss where the next token is another document's.

    Parameters
    ----------
    lengths
        For each sample, how many of its s + 1 tokens each document has, in order. A document cut by the sample's start counts from
        there, as it would by itself.
    """
    seq_length = sum(lengths[0]) - 1
    loss_mask = np.ones((len(lengths), seq_length), dtype=np.float32)
    starts = []
    for row, row_lengths in enumerate(lengths):
        ends = np.cumsum(row_lengths[:-1], dtype=np.int64)  # of all documents but the last, whose own next token is its label
        loss_mask[row, ends - 1] = 0
        begins = np.concatenate(([0], ends))
        starts.append(row * seq_length + begins[begins < seq_length])  # the last may be there for its first token as a label
    cu_seqlens = np.concatenate((*starts, [loss_mask.size]))
    positions = np.arange(loss_mask.size) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    return DocumentStarts(
        loss_mask=torch.from_numpy(loss_mask),
        position_ids=torch.from_numpy(positions.reshape(loss_mask.shape)),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
    )
