from functools import partial

import pytest
import torch
from torch.library import opcheck

from megatron_astro.ops.causal_softmax import causal_softmax_fused, causal_softmax_reference

DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


def truth(scores, scale):
    queries, keys = scores.shape[-2:]
    seen = torch.ones(queries, keys).tril(keys - queries)
    return (scores * scale).masked_fill(seen == 0, -torch.inf).softmax(dim=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 7, 7), (2, 5, 40), (6, 130, 131)])
@pytest.mark.parametrize("scale", [0.125, 1.0, 40.0, 0.0, -2.0])
def test_error_is_at_most_twice_pytorchs(instruction_set, shape, dtype, scale, random, compare):
    torch.manual_seed(0)
    functions = (partial(function, scale=scale) for function in (causal_softmax_fused, causal_softmax_reference, truth))
    compare(*functions, random(dtype, shape), random(dtype, shape))


def test_what_is_masked_is_neither_read_nor_written_as_anything_but_zero(instruction_set):
    scores = torch.zeros(1, 20, 20).masked_fill(torch.ones(20, 20).triu(1) == 1, torch.nan)
    probabilities = causal_softmax_fused(scores, 1.0)
    assert torch.equal(probabilities[0], torch.ones(20, 20).tril() / torch.arange(1.0, 21)[:, None])


def test_huge_scores_do_not_overflow(instruction_set):
    assert causal_softmax_fused(torch.full((1, 2, 2), 3e38), 1.0).tolist() == [[[1.0, 0.0], [0.5, 0.5]]]


def test_nothing_to_do():
    for shape in [(0, 3, 3), (2, 0, 5)]:
        assert causal_softmax_fused(torch.empty(shape), 1.0).shape == shape


REFUSED = [
    ("more queries", torch.ones(1, 3, 2), "3 queries and only 2 keys"),
    ("one axis", torch.ones(3), "queries, keys"),
    ("strided", torch.ones(1, 2, 3).transpose(1, 2), "not contiguous"),
    ("float64", torch.ones(1, 2, 2).double(), "float32 or bfloat16"),
]


@pytest.mark.parametrize(("scores", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(scores, text):
    with pytest.raises(RuntimeError, match=text):
        raw.causal_softmax(scores, 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_knows_the_operations(dtype, device, random):
    grad, scores = random(dtype, (2, 3, 4), (2, 3, 4))
    opcheck(raw.causal_softmax.default, (scores, 0.5))
    opcheck(raw.causal_softmax_backward.default, (grad, scores, 0.5))


def test_there_is_no_second_derivative(no_second_derivative):
    no_second_derivative(lambda scores: causal_softmax_fused(scores, 1.0), 2, 3, 3)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(random, same_when_compiled):
    same_when_compiled(lambda scores: causal_softmax_fused(scores, 0.5).square().sum(), random(torch.float32, (2, 3, 4)))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(gradients_in_a_cuda_graph):
    gradients_in_a_cuda_graph(lambda scores: causal_softmax_fused(scores, 0.5), (2, 65, 130))
