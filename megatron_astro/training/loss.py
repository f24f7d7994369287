"""The language-model loss as megatron.core's pipeline schedule wants it.

Shapes: b micro-batch, s sequence.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from megatron_astro.data.loader import Batch
from megatron_astro.model.layers import packed_documents

LossFunction = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def lm_forward(batches: Iterator[Batch], model: GPTModel) -> tuple[Tensor, LossFunction]:
    """One micro-batch through this stage: hidden states, or on the last stage the losses, and how to sum them.

    A batch of documents that do not see each other is one row: the losses are [1, b s].
    """
    batch = next(batches)
    device = torch.cuda.current_device()
    ids, position_ids, loss_mask = (
        tensor.to(device, non_blocking=True) for tensor in (batch.ids, batch.position_ids, batch.loss_mask)
    )
    tokens, labels = ids[:, :-1], ids[:, 1:]
    if batch.cu_seqlens is None:
        losses = model(tokens, position_ids, None, labels=labels, loss_mask=loss_mask)
        return losses, partial(sum_token_losses, loss_mask)
    tokens, position_ids, labels, loss_mask = (
        tensor.reshape(1, -1) for tensor in (tokens, position_ids, labels, loss_mask)
    )  # [1, b s]: one row of documents
    documents = packed_documents(batch.cu_seqlens.to(device, non_blocking=True), int(batch.cu_seqlens.diff().max()))
    losses = model(tokens, position_ids, None, labels=labels, loss_mask=loss_mask, packed_seq_params=documents)
    return losses, partial(sum_token_losses, loss_mask)


def sum_token_losses(loss_mask: Tensor, token_losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the losses [b, s] where the mask [b, s] is 1; a model whose output layer and loss are one gives that sum [] itself.

    Returns the sum to differentiate, the number of tokens, and (sum, number) to report: a copy, for the schedule divides the sum in place.
    """
    loss_sum = (token_losses.float() * loss_mask).sum() if token_losses.dim() else token_losses
    num_tokens = loss_mask.sum()
    report = torch.stack([loss_sum.detach().double(), num_tokens.double()])
    return loss_sum, num_tokens.int(), report
