"""The CPU kernels on bare addresses: what lies around a buffer is neither written nor read, and any address of an element is right."""

import ctypes
import mmap
import subprocess
import sys

import pytest
import torch

import megatron_astro.ops.native  # noqa: F401  torch must load the kernels before the module that asks about them
from megatron_astro import _ops

ROOM, PATTERN = 256, 0xA5
SETS = ("baseline", "avx2", "avx512")
DTYPES = [torch.float32, torch.bfloat16]
ops = torch.ops.megatron_astro


class Guarded:
    """A tensor's numbers between bytes of a pattern, `shift` elements after a multiple of 64."""

    def __init__(self, values, shift=0):
        self.values = values.contiguous()
        self.room = torch.full((values.nbytes + 2 * ROOM + 64,), PATTERN, dtype=torch.uint8)
        self.first = -self.room.data_ptr() % 64 + ROOM + shift * values.element_size()
        self.inside[:] = self.values.flatten().view(torch.uint8)

    @property
    def inside(self):
        return self.room[self.first : self.first + self.values.nbytes]

    @property
    def address(self):
        return self.room.data_ptr() + self.first

    def result(self):
        """The numbers now, after a check that nothing around them has changed."""
        around = torch.cat([self.room[: self.first], self.room[self.first + self.values.nbytes :]])
        assert (around == PATTERN).all(), "bytes around a buffer were written"
        return self.inside.clone().view(self.values.dtype).view(self.values.shape)


class AtTheEnd:
    """A tensor's numbers right before a page that must not be touched: who reads or writes it is killed."""

    def __init__(self, values):
        self.values, page = values.contiguous(), mmap.PAGESIZE
        pages = -(-values.nbytes // page)
        self.room = mmap.mmap(-1, (pages + 1) * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.room))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + pages * page), page, 0) == 0
        self.address = start + pages * page - values.nbytes
        ctypes.memmove(self.address, self.values.data_ptr(), values.nbytes)

    def result(self):
        """The numbers now."""
        found = torch.empty_like(self.values)
        ctypes.memmove(found.data_ptr(), self.address, found.nbytes)
        return found


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def rms_norm(place, rows, columns, dtype):
    hidden, weight = torch.randn(rows, columns).to(dtype), torch.randn(columns).to(dtype)
    buffers = [place(values) for values in (hidden, weight, torch.zeros_like(hidden), torch.zeros(rows))]
    _ops.raw_rms_norm_forward(*(buffer.address for buffer in buffers), rows, columns, 1e-5, name_of(dtype))
    return buffers, [hidden, weight, *ops.rms_norm(hidden, weight, 1e-5)]


def swiglu(place, rows, columns, dtype):
    gates = torch.randn(rows, 2 * columns).to(dtype)
    buffers = [place(gates), place(torch.zeros(rows, columns, dtype=dtype))]
    _ops.raw_swiglu_forward(*(buffer.address for buffer in buffers), rows, columns, name_of(dtype))
    return buffers, [gates, ops.swiglu(gates)]


def swiglu_backward(place, rows, columns, dtype):
    grad, gates = torch.randn(rows, columns).to(dtype), torch.randn(rows, 2 * columns).to(dtype)
    buffers = [place(values) for values in (grad, gates, torch.zeros_like(gates))]
    _ops.raw_swiglu_backward(*(buffer.address for buffer in buffers), rows, columns, name_of(dtype))
    return buffers, [grad, gates, ops.swiglu_backward(grad, gates)]


def cross_entropy_gradient(place, rows, columns, dtype):
    logits, labels, grads = torch.randn(rows, columns).to(dtype), torch.randint(0, columns, (rows,)), torch.rand(rows)
    maximum, total, _ = ops.cross_entropy_statistics(logits, labels, 0, -100)
    buffers = [place(values) for values in (logits, labels, maximum, total, grads)]
    _ops.raw_cross_entropy_gradient(*(buffer.address for buffer in buffers), rows, columns, name_of(dtype))
    written = logits.clone()
    ops.cross_entropy_gradient_(written, labels, maximum, total, grads, 0, -100)
    return buffers, [written, labels, maximum, total, grads]


def adamw(place, rows, columns, dtype):
    size = rows * columns
    tensors = [torch.randn(size), torch.randn(size).to(dtype), torch.randn(size), torch.rand(size), torch.zeros(size).bfloat16()]
    buffers = [place(values) for values in tensors]
    _ops.raw_adamw(*(buffer.address for buffer in buffers), size, 1e-2, 3.0, name_of(dtype))
    numbers = (torch.tensor(value) for value in (1e-2, 3.0, 1.0))
    ops.adamw_(*([tensor] for tensor in tensors), *numbers, 0.9, 0.95, 1e-8, 0.1)
    return buffers, tensors


KERNELS = [rms_norm, swiglu, swiglu_backward, cross_entropy_gradient, adamw]


def check(kernel, place, rows, columns, dtype):
    """On bare addresses as on the tensors of the operation, bit for bit."""
    torch.manual_seed(columns)
    buffers, expected = kernel(place, rows, columns, dtype)
    for buffer, tensor in zip(buffers, expected, strict=True):
        assert torch.equal(buffer.result(), tensor), (kernel.__name__, columns, dtype)


@pytest.fixture(params=SETS)
def instruction_set(request):
    """Run the kernels of each instruction set in turn."""
    before = _ops.instruction_set()
    if SETS.index(request.param) > SETS.index(_ops.best_instruction_set()):
        pytest.skip(f"this processor has no {request.param}")
    _ops.use_instruction_set(request.param)
    yield request.param
    _ops.use_instruction_set(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 1, 7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_place_of_an_element_is_right_and_nothing_around_is_written(instruction_set, kernel, shift, dtype):
    for columns in (1, 15, 16, 17, 31, 33, 64, 100):
        check(kernel, lambda values: Guarded(values, shift), 3, columns, dtype)


def beyond_the_end(name):
    """Run by the test below, in a process of its own."""
    _ops.use_instruction_set(name)
    for kernel in KERNELS:
        for dtype in DTYPES:
            for columns in (1, 3, 15, 17, 63, 65, 127):
                check(kernel, AtTheEnd, 2, columns, dtype)
    for kernel in (swiglu, swiglu_backward):  # large enough to be streamed, from an address that must not be
        check(kernel, lambda values: Guarded(values, 1), 600, 8192, torch.float32)


def test_nothing_beyond_the_end_is_read(instruction_set):
    command = [sys.executable, "-W", "ignore", __file__, instruction_set]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"killed by signal {-done.returncode}"


REFUSED = [
    ("null", lambda: _ops.raw_swiglu_forward(0, 64, 1, 1, "float32"), "gate_up is at address 0"),
    ("half an element", lambda: _ops.raw_swiglu_forward(64, 66, 1, 1, "float32"), "output is at address 66.* multiple of 4"),
    ("odd", lambda: _ops.raw_swiglu_backward(64, 64, 65, 1, 1, "bfloat16"), "grad_gate_up is at address 65.* multiple of 2"),
    ("labels", lambda: _ops.raw_cross_entropy_gradient(64, 68, 64, 64, 64, 1, 1, "float32"), "labels .* multiple of 8"),
    ("dtype", lambda: _ops.raw_rms_norm_forward(64, 64, 64, 64, 1, 1, 1e-5, "float64"), "dtype is 'float64'"),
    ("size", lambda: _ops.raw_adamw(64, 64, 64, 64, 64, -1, 1e-2, 1.0, "float32"), "cannot be 1 rows of -1 columns"),
]


@pytest.mark.parametrize(("call", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_address_of_an_element_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


if __name__ == "__main__":
    beyond_the_end(sys.argv[1])
