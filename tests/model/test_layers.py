import pytest
import torch
from torch.nn.functional import cross_entropy

from megatron_astro.model.layers import hide_padding

VOCABULARY, ROWS, HIDDEN = 5, 8, 3


class Output(torch.nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(rows * HIDDEN, dtype=torch.float64).reshape(rows, HIDDEN).sin())

    def forward(self, hidden):
        return hidden @ self.weight.T, None


def test_padding_changes_neither_loss_nor_gradient():
    plain, padded = Output(VOCABULARY), Output(ROWS)
    padded.register_forward_hook(hide_padding(VOCABULARY))
    hidden, targets = torch.linspace(-1, 1, 4 * HIDDEN, dtype=torch.float64).reshape(4, HIDDEN), torch.tensor([0, 4, 2, 1])
    losses = [cross_entropy(output(hidden)[0], targets) for output in (plain, padded)]
    for loss in losses:
        loss.backward()
    # sums of up to 8 products of numbers below 1, in float64
    assert (losses[0] - losses[1]).abs() < 8 * 2.0**-52
    assert (padded.weight.grad[:VOCABULARY] - plain.weight.grad).abs().max() < 8 * 2.0**-52
    assert not padded.weight.grad[VOCABULARY:].any()


@pytest.mark.parametrize(("num_tokens", "hidden_columns"), [(9, 0), (8, 0), (3, 5), (0, 8), (-2, 8)])
def test_a_rank_may_hold_some_padding_or_nothing_else(num_tokens, hidden_columns):
    logits, _ = hide_padding(num_tokens)(None, None, (torch.zeros(2, 1, ROWS), None))
    assert int(logits.isneginf().sum()) == 2 * hidden_columns
