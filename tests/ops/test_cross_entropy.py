from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
from torch.library import opcheck

from megatron_astro.ops.cross_entropy import cross_entropy_fused, cross_entropy_reference

DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


def truth(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def eager(logits, labels):
    return F.cross_entropy(logits.float(), labels, reduction="none")


def some_labels(rows, columns):
    labels = torch.randint(0, columns, (rows,))
    labels[::3] = -100
    labels[1:3] = torch.tensor([0, columns - 1])[: max(0, min(2, rows - 1))]
    return labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (4, 37), (9, 1000), (3, 4096), (2, 9001), (2, 262_147)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_error_is_at_most_twice_pytorchs(instruction_set, shape, dtype, scale, random, compare):
    torch.manual_seed(0)
    labels = some_labels(*shape)
    functions = (partial(function, labels=labels) for function in (cross_entropy_fused, eager, truth))
    compare(*functions, random(dtype, shape, scale=scale), random(torch.float32, shape[:1]))


def test_the_reference_is_pytorchs(random):
    torch.manual_seed(1)
    (logits,) = random(torch.float32, (6, 50))
    labels = some_labels(6, 50)
    torch.testing.assert_close(cross_entropy_reference(logits, labels), eager(logits, labels))


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_slices_of_the_vocabulary_add_up(instruction_set, num_ranks, random):
    """What ranks do by all-reduce: the largest maximum, the sums against it, and the one target."""
    torch.manual_seed(2)
    (logits,) = random(torch.float32, (8, 100))
    labels = some_labels(8, 100)
    width = 100 // num_ranks
    slices = [logits[:, first : first + width].contiguous() for first in range(0, 100, width)]
    maximum, total, target = torch.stack(
        [raw.cross_entropy_statistics(part, labels, rank * width, -100) for rank, part in enumerate(slices)]
    ).unbind(1)
    highest = maximum.amax(0)
    total = (total * (maximum - highest).exp()).sum(0)
    losses = (total.log() + highest - target.sum(0)).masked_fill(labels == -100, 0)
    torch.testing.assert_close(losses, eager(logits, labels))
    grads = torch.rand(8)
    for rank, part in enumerate(slices):
        raw.cross_entropy_gradient_(part, labels, highest, total, grads, rank * width, -100)
    expected = torch.autograd.functional.vjp(lambda logits: eager(logits, labels), logits, grads)[1]
    torch.testing.assert_close(torch.cat(slices, dim=1), expected)


def test_infinite_and_huge_logits(instruction_set):
    logits = torch.full((3, 5000), -torch.inf)
    logits[:, 4900] = torch.tensor([0.0, 3e38, -3e38])
    logits[0, 4901] = 0.0
    losses = cross_entropy_fused(logits.requires_grad_() * 1, torch.full((3,), 4900))
    torch.testing.assert_close(losses, torch.tensor([2.0, 1.0, 1.0]).log())
    losses.sum().backward()
    assert logits.grad[0, 4900:4902].tolist() == [-0.5, 0.5]
    assert logits.grad[1:].abs().sum() == 0


def test_not_a_number_reaches_the_loss_unless_ignored(instruction_set):
    for place in (0, 4090, 4999):
        logits = torch.zeros(2, 5000)
        logits[:, place] = torch.nan
        losses = cross_entropy_fused(logits, torch.tensor([17, -100]))
        assert losses.isnan().tolist() == [True, False]


def test_not_a_number_among_nothing_but_minus_infinity_reaches_the_loss(instruction_set):
    logits = torch.full((1, 5000), -torch.inf)
    logits[0, [100, 4900]] = torch.tensor([torch.nan, 1.0])  # far apart: not read together
    assert cross_entropy_fused(logits, torch.tensor([4900])).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
def test_a_gradient_that_is_not_a_number_reaches_every_logit_whatever_its_bits(instruction_set, bits, dtype, random):
    (logits,) = random(dtype, (1, 70))
    grads = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    raw.cross_entropy_gradient_(logits, torch.tensor([3]), torch.zeros(1), torch.ones(1), grads, 0, -100)
    assert logits.isnan().all()


@pytest.mark.parametrize("function", [cross_entropy_fused, cross_entropy_reference])
def test_a_label_outside_the_vocabulary_gives_no_loss_that_could_be_taken_for_one(function):
    losses = function(torch.zeros(4, 10), torch.tensor([9, 10, -1, -100]))
    assert losses.isnan().tolist() == [False, True, True, False]


def test_a_second_backward_pass_is_refused():
    logits = torch.randn(3, 7, requires_grad=True)
    losses = cross_entropy_fused(logits * 1, torch.tensor([0, 1, 2]))
    losses.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()


def test_no_tokens():
    logits = torch.empty(0, 7, requires_grad=True)
    cross_entropy_fused(logits, torch.empty(0, dtype=torch.int64)).sum().backward()
    assert logits.grad.shape == (0, 7)


LOGITS, LABELS = torch.ones(4, 8), torch.ones(4, dtype=torch.int64)
REFUSED = [
    ("three axes", (torch.ones(1, 4, 8), LABELS), "logits must be"),
    ("strided", (torch.ones(8, 4).t(), LABELS), "logits is not contiguous"),
    ("int32 labels", (LOGITS, LABELS.int()), "labels must be int64"),
    ("fewer labels", (LOGITS, LABELS[:3]), r"labels must be \[rows\]"),
    ("float64", (LOGITS.double(), LABELS), "float32 or bfloat16"),
]


@pytest.mark.parametrize(("arguments", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(arguments, text):
    with pytest.raises(RuntimeError, match=text):
        raw.cross_entropy_statistics(*arguments, 0, -100)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_knows_the_operations(dtype, device, random):
    (logits,), labels = random(dtype, (4, 9)), LABELS.to(device)
    opcheck(raw.cross_entropy_statistics.default, (logits, labels, 0, -100))
    opcheck(raw.cross_entropy_gradient_.default, (logits, labels, *torch.rand(3, 4), 0, -100))


def test_there_is_no_second_derivative(no_second_derivative):
    no_second_derivative(lambda logits: cross_entropy_fused(logits, LABELS), 4, 8)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(random, same_when_compiled):
    same_when_compiled(lambda logits: cross_entropy_fused(logits * 2, LABELS).square().sum(), random(torch.float32, (4, 9)))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(gradients_in_a_cuda_graph):
    labels = some_labels(33, 128_256).cuda()
    gradients_in_a_cuda_graph(lambda logits: cross_entropy_fused(logits, labels), (33, 128_256))
