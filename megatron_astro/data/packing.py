"""Samples of several documents that do not see each other: where each starts, as cumulative lengths, never as an s x s mask.

Shapes: b samples, s tokens in each, without the one more that is only a label.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentStarts:
    """What a model needs to know of a batch's documents: loss_mask [b, s] float32, position_ids [b, s] int64, cu_seqlens."""

    loss_mask: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    """Token of the flattened batch at which each document starts, and the end, [documents + 1] int32."""


def document_starts(samples: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], seq_length: int) -> DocumentStarts:
    """Positions from 0 in every document, and no loss where the next token is another document's.

    Parameters
    ----------
    samples
        Which sample each document lies in, counted from 0, rising, [documents].
    lengths
        How many of the sample's s + 1 tokens it has, [documents]. A document cut by the sample's start counts from there, as it would
        by itself.
    """
    num_samples = int(samples[-1]) + 1
    ends = np.cumsum(lengths) - samples  # in samples of s tokens laid end to end
    starts = ends - lengths
    loss_mask = np.ones(num_samples * seq_length, dtype=np.float32)
    loss_mask[ends[:-1][samples[:-1] == samples[1:]] - 1] = 0  # not of a sample's last document, whose next token is its label
    starts = starts[starts < (samples + 1) * seq_length]  # the last may be there only for its first token, as a label
    cu_seqlens = np.append(starts, loss_mask.size)
    positions = np.arange(loss_mask.size) - np.repeat(starts, np.diff(cu_seqlens))
    return DocumentStarts(
        loss_mask=torch.from_numpy(loss_mask.reshape(num_samples, seq_length)),
        position_ids=torch.from_numpy(positions.reshape(num_samples, seq_length)),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
    )
