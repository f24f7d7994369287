"""That running the .cu sources on a CPU finds mistakes: each one planted here must be seen by one of the schedules."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by

pytestmark = pytest.mark.slow  # each is compiled anew

SYNC_BEFORE_READING = "if (lane == 0) of_warps[warp] = value;\n  __syncthreads();"
SYNC_BEFORE_NEXT = "__syncthreads();  // the next reduction writes there"
PLANTED = {
    "no barrier before the warps' sums are read": (
        "rms_norm",
        SYNC_BEFORE_READING,
        SYNC_BEFORE_READING.replace("__syncthreads();", ""),
    ),
    "no barrier before they are written again": ("rms_norm", SYNC_BEFORE_NEXT, ""),
    "a barrier that only some threads reach": (
        "rms_norm",
        SYNC_BEFORE_READING,
        SYNC_BEFORE_READING.replace("__sync", "if (warp == 0) __sync"),
    ),
    "a dropped tail": ("cross_entropy", "if (tail < size) one(tail);", ""),
    "a mask off by one": ("causal_softmax", "row % a.queries + 1 + a.keys", "row % a.queries + 2 + a.keys"),
    "a lane left out of the warp's sum": ("rms_norm", "distance = WARP / 2; distance > 0", "distance = WARP / 2; distance > 1"),
    "the last rows of a block's turn dropped": ("rms_norm", "row < a.rows; row += gridDim.x", "row < a.rows; row += a.rows"),
    "an ignored label that counts": ("cross_entropy", "if (ignored) return 0.0f;", ""),
    "angles overwritten while they are read": ("rope", "__syncthreads();  // the next angles take their place", ""),
}


def rms_norm(ops):
    torch.manual_seed(0)
    hidden, weight, grad = torch.randn(600, 256), torch.randn(256), torch.randn(600, 256)
    output, inverse_rms = ops.rms_norm(hidden, weight, 1e-5)
    grad_hidden, grad_weight = ops.rms_norm_backward(grad, None, hidden, weight, inverse_rms)
    inputs = hidden.double().requires_grad_(), weight.double().requires_grad_()
    truth = F.rms_norm(inputs[0], (256,), inputs[1], 1e-5)
    truth.backward(grad.double())
    return [(output, truth.detach()), (grad_hidden, inputs[0].grad), (grad_weight, inputs[1].grad)]


def cross_entropy(ops):
    torch.manual_seed(1)
    logits, labels = torch.randn(3, 1003) * 5, torch.tensor([5, 1002, -100])
    maximum, total, _ = ops.cross_entropy_statistics(logits, labels, 0, -100)
    written = logits.clone()
    ops.cross_entropy_gradient_(written, labels, maximum, total, torch.ones(3), 0, -100)
    truth = torch.softmax(logits.double(), dim=1)
    truth[[0, 1], labels[:2]] -= 1
    truth[2] = 0
    sums = (logits.double() - logits.double().max(dim=1).values[:, None]).exp().sum(dim=1)
    return [(total[:2], sums[:2]), (written, truth)]


def causal_softmax(ops):
    torch.manual_seed(2)
    scores = torch.randn(2, 5, 37)
    seen = torch.ones(5, 37, dtype=torch.bool).tril(32)
    truth = torch.softmax(scores.double().masked_fill(~seen, -torch.inf), dim=-1)
    return [(ops.causal_softmax(scores, 1.0), truth)]


def rope(ops):
    torch.manual_seed(3)
    head_size = 528  # two rounds of angles
    query, key, frequencies = torch.randn(5, 1, 3, head_size), torch.randn(5, 1, 1, head_size), torch.rand(head_size // 2)
    angles = (torch.arange(5).float()[:, None] * frequencies).double()[:, None, None, :]
    results = []
    for ours, x in zip(ops.rope(query, key, frequencies, None, 0, False), (query, key), strict=True):
        first, second = x.double().chunk(2, dim=-1)
        turned = [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()]
        results.append((ours, torch.cat(turned, dim=-1)))
    return results


CHECKS = {check.__name__: check for check in (rms_norm, cross_entropy, causal_softmax, rope)}


def is_right(library, operation):
    """Whether every schedule runs to the end and gives what float64 gives, to a thousandth."""
    for schedule in range(3):
        library.schedule(schedule)
        try:
            results = CHECKS[operation](library.ops)
        except RuntimeError:  # a block whose threads wait for ever
            return False
        if not all(torch.allclose(ours.double(), truth, rtol=1e-3, atol=1e-4) for ours, truth in results):
            return False
    return True


@pytest.mark.parametrize("operation", CHECKS)
def test_what_is_there_is_right(cuda_libraries, operation):
    assert is_right(cuda_libraries[operation], operation)


@pytest.mark.parametrize("number", range(len(PLANTED)), ids=list(PLANTED))
def test_is_seen(planted, number):
    operation, text, replacement = list(PLANTED.values())[number]
    assert not is_right(planted(operation, text, replacement, number), operation)
