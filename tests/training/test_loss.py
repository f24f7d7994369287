import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.training.loss import lm_forward, sum_token_losses

from megatron_astro.data.loader import Batch

LOSSES = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])


def test_only_what_the_mask_lets_through_counts():
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    loss_sum, num_tokens, report = sum_token_losses(mask, LOSSES)
    assert (float(loss_sum), int(num_tokens), report.tolist()) == (37.0, 3, [37.0, 3.0])
    assert (num_tokens.dtype, report.dtype) == (torch.int32, torch.float64)


def test_the_report_is_a_copy():
    """The schedule divides the sum in place."""
    loss_sum, _, report = sum_token_losses(torch.ones(2, 3), LOSSES)
    loss_sum /= 63
    assert report.tolist() == [63.0, 6.0]


def test_half_precision_is_summed_in_float32():
    losses = torch.ones(1, 4097, dtype=torch.bfloat16)  # which has no 4097
    assert float(sum_token_losses(torch.ones(1, 4097, dtype=torch.bfloat16), losses)[0]) == 4097


def test_a_model_that_sums_by_itself_is_believed():
    assert sum_token_losses(torch.ones(1, 5), torch.tensor(7.0))[2].tolist() == [7.0, 5.0]


@pytest.mark.parametrize("cu_seqlens", [None, [0, 8, 16]])
def test_the_loss_is_that_of_the_logits(alone, loss_by_torch, cu_seqlens):
    """Two samples, each by itself: as rows, or laid end to end as documents that do not see each other."""
    ids = torch.randint(0, 306, (2, 9), generator=torch.Generator().manual_seed(1))
    documents = None if cu_seqlens is None else torch.tensor(cu_seqlens, dtype=torch.int32)
    batch = Batch(
        ids=ids, loss_mask=torch.ones(2, 8), position_ids=torch.arange(8).expand(2, 8).contiguous(), cu_seqlens=documents
    )
    losses, sum_up = lm_forward(iter([batch]), alone.model[0].module)
    loss_sum, num_tokens, _ = sum_up(losses)
    # float32 sums over 96 numbers in each of two layers
    assert float(loss_sum / num_tokens) == pytest.approx(loss_by_torch(alone.model, ids), rel=96 * 2 * 2**-23)
