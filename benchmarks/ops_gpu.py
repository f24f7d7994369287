"""Our CUDA kernels against PyTorch's own, torch.compile and Liger, beside the floor that the card's memory sets; in one process.

    python benchmarks/ops_gpu.py [--rounds 30] [--only rms_norm ...]
    python benchmarks/ops_gpu.py --rehearse     small tensors on a CPU: that the script runs, no figures

A time is that of a forward and a backward pass (AdamW: norm, clip and update), bfloat16, from CUDA events; the device is kept waiting
until everything is launched, so that launching from Python does not count. Contenders take turns over several sets of inputs, larger
together than the cache. `floor` is the fewest bytes there are to move, over the rate that a plain copy or addition reached in the same
run; `of floor` is the floor over the median. An error is the largest difference from float64, over the largest true value.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ops as on_cpu  # the script beside this one
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
import tyro
from torch import Tensor

from megatron_astro import provenance
from megatron_astro.ops import native
from megatron_astro.ops.adamw import AdamwSettings, AdamwTensors, adamw_fused, adamw_reference, squared_norm_fused
from megatron_astro.ops.cross_entropy import cross_entropy_fused
from megatron_astro.ops.linear_cross_entropy import linear_cross_entropy_fused
from megatron_astro.ops.rms_norm import add_rms_norm_fused, add_rms_norm_reference, rms_norm_fused, rms_norm_reference
from megatron_astro.ops.rope import rope_fused, rope_reference
from megatron_astro.ops.swiglu import swiglu_fused, swiglu_reference

EPSILON = 1e-5
MODELS = {"8B": (4096, 14336, 32), "70B": (8192, 28672, 64)}  # hidden, feed-forward and query heads; 8 key heads of 128
CACHE_BYTES = 256 * 2**20
Step = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which cases to run and how."""

    rounds: int = 30
    """Rounds in which every contender runs once."""
    rehearse: bool = False
    """Small tensors on a CPU."""
    only: tuple[str, ...] = ()
    """Cases to run; none: all."""

    @property
    def device(self) -> str:
        """Where tensors are made."""
        return "cpu" if self.rehearse else "cuda"

    def size(self, full: int) -> int:
        """A size, or a small one to rehearse with."""
        return max(full // 256, 16) if self.rehearse else full


@dataclass(frozen=True, kw_only=True)
class Case:
    """One computation: contenders by name, ours under "ours", the fewest bytes it can move, and what the issue asks of it."""

    name: str
    inputs: list[Tensor]
    grads: list[Tensor]
    contenders: dict[str, Step]
    floor_bytes: int
    probe: str
    target: str


class Timer:
    """Milliseconds of a piece of work on the device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        """Launch everything while the device waits, then measure what it does."""
        if self.device == "cpu":
            started_at = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - started_at)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(20_000_000)  # some ten milliseconds
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end))


def probes(options: Options, timer: Timer) -> dict[str, float]:
    """Bytes a millisecond of a copy (one read, one write) and of an addition (two reads, one write)."""
    a, b, c = torch.randn(3, options.size(2**29), device=options.device).bfloat16()
    rates = {}
    for name, num_tensors, work in (("copy", 2, lambda: c.copy_(a)), ("add", 3, lambda: torch.add(a, b, out=c))):
        median = statistics.median([timer(work) for _ in range(options.rounds + 3)][3:])
        rates[name] = num_tensors * a.nbytes / median
        print(f"{name}: {rates[name] / 1e9:.3f} TB/s, {num_tensors} x {a.nbytes / 2**20:.0f} MiB")
    return rates


def measure(case: Case, options: Options, timer: Timer, rates: dict[str, float]) -> None:
    """Print a line a contender."""
    truths = on_cpu.both_passes(case.contenders["eager"], on_cpu.fresh(case.inputs, torch.float64), case.grads)
    errors = {}
    for name, run in case.contenders.items():
        errors[name] = on_cpu.error_of(on_cpu.both_passes(run, on_cpu.fresh(case.inputs), case.grads), truths)
        gc.collect()
    del truths
    num_sets = max(1, min(4, CACHE_BYTES // sum(tensor.nbytes for tensor in case.inputs) + 1))
    times: dict[str, list[float]] = {name: [] for name in case.contenders}
    for turn in range(options.rounds + 3):
        for name, run in case.contenders.items():
            sets = [on_cpu.fresh(case.inputs) for _ in range(num_sets)]
            inputs = sets[turn % num_sets]
            milliseconds = timer(lambda: on_cpu.both_passes(run, inputs, case.grads))
            if turn >= 3:
                times[name].append(milliseconds)
    show(case.name, times, errors, case.floor_bytes / rates[case.probe], case.target)


def show(name: str, times: dict[str, list[float]], errors: dict[str, float], floor: float, target: str) -> None:
    """The table of a case."""
    print(f"\n{name}; floor {floor:.3f} ms; asked: {target}")
    for contender, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(
            f"  {contender:<16}{middle:9.3f} median{low:9.3f} min{high:9.3f} max {floor / middle:7.1%} of floor"
            + (f"   error {errors[contender]:.1e}" if contender in errors else "")
        )


def liger(name: str, **arguments: Any) -> dict[str, Step]:
    """Liger's function by name, where it is installed."""
    try:
        from liger_kernel.transformers import functional
    except ImportError:
        return {}
    function = getattr(functional, name)
    return {"Liger": lambda *tensors: function(*tensors, **arguments)}


def norm_cases(options: Options) -> Iterator[Case]:
    """RMSNorm, alone and after adding a residual."""
    for model, (hidden_size, _, _) in MODELS.items():
        shape = (options.size(8192), options.size(hidden_size))
        hidden, residual, grad, other = torch.randn(4, *shape, device=options.device).bfloat16()
        weight = torch.rand(shape[1], device=options.device).bfloat16()
        yield Case(
            name=f"rms_norm {model}, {shape}",
            inputs=[hidden, weight],
            grads=[grad],
            contenders={
                "eager": lambda hidden, weight: F.rms_norm(hidden, weight.shape, weight, EPSILON),
                "torch.compile": on_cpu.compiled(lambda hidden, weight: rms_norm_reference(hidden, weight, EPSILON)),
                **liger("liger_rms_norm", eps=EPSILON),
                "ours": lambda hidden, weight: rms_norm_fused(hidden, weight, EPSILON),
            },
            floor_bytes=5 * hidden.nbytes,
            probe="add",
            target="at least 85 % of floor",
        )
        yield Case(
            name=f"add_rms_norm {model}, {shape}",
            inputs=[hidden, residual, weight],
            grads=[grad, other],
            contenders={
                "eager": lambda a, b, weight: (F.rms_norm(a + b, weight.shape, weight, EPSILON), a + b),
                "torch.compile": on_cpu.compiled(lambda *tensors: add_rms_norm_reference(*tensors, EPSILON)),
                "ours": lambda *tensors: add_rms_norm_fused(*tensors, EPSILON),
            },
            floor_bytes=8 * hidden.nbytes,
            probe="add",
            target="at least 85 % of floor",
        )


def swiglu_cases(options: Options) -> Iterator[Case]:
    """SwiGLU."""
    for model, (_, ffn_size, _) in MODELS.items():
        rows, columns = options.size(8192), options.size(ffn_size)
        gate_up = torch.randn(rows, 2 * columns, device=options.device).bfloat16()
        yield Case(
            name=f"swiglu {model}, {(rows, 2 * columns)}",
            inputs=[gate_up],
            grads=[torch.randn(rows, columns, device=options.device).bfloat16()],
            contenders={"eager": swiglu_reference, "torch.compile": on_cpu.compiled(swiglu_reference), "ours": swiglu_fused},
            floor_bytes=4 * gate_up.nbytes,
            probe="add",
            target="at least 85 % of floor",
        )


def rope_cases(options: Options) -> Iterator[Case]:
    """RoPE of query and key, in place."""
    frequencies = 1 / 5e5 ** (torch.arange(0, 128, 2, device=options.device).float() / 128)
    for model, (_, _, heads) in MODELS.items():
        shapes = ((options.size(8192), 1, heads, 128), (options.size(8192), 1, 8, 128))
        query, key, grad_query, grad_key = (torch.randn(shape, device=options.device).bfloat16() for shape in shapes * 2)
        yield Case(
            name=f"rope {model}, {shapes[0][0]} x ({heads} + 8) x 128",
            inputs=[query, key],
            grads=[grad_query, grad_key],
            contenders={
                "eager": lambda query, key: rope_reference(query, key, frequencies),
                "torch.compile": on_cpu.compiled(lambda query, key: rope_reference(query, key, frequencies)),
                "ours": lambda query, key: rope_fused(query, key, frequencies),
            },
            floor_bytes=4 * (query.nbytes + key.nbytes),
            probe="copy",
            target="at least 85 % of floor",
        )


def cross_entropy_cases(options: Options) -> Iterator[Case]:
    """Cross entropy of one rank."""
    rows, columns = options.size(8192), options.size(128_256)
    labels = torch.randint(0, columns, (rows,), device=options.device)

    def loss(logits: Tensor) -> Tensor:
        wide = logits if logits.dtype is torch.float64 else logits.float()
        return F.cross_entropy(wide, labels, reduction="none")

    logits = torch.randn(rows, columns, device=options.device).bfloat16()
    yield Case(
        name=f"cross_entropy {(rows, columns)}",
        inputs=[logits],
        grads=[torch.rand(rows, device=options.device)],
        contenders={
            "eager": loss,
            "torch.compile": on_cpu.compiled(loss),
            **liger("liger_cross_entropy", target=labels, reduction="none"),
            "ours": lambda logits: cross_entropy_fused(logits, labels),
        },
        floor_bytes=3 * logits.nbytes,
        probe="add",
        target="at most 1.65 ms on an H200",
    )


def linear_contenders(options: Options, hidden_size: int) -> dict[str, Callable[[], object]]:
    """Both passes of linear + cross entropy by each contender, and its three bare matrix products."""
    rows, width, columns = options.size(8192), options.size(hidden_size), options.size(128_256)
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, device=options.device).bfloat16().requires_grad_()
    weight = (torch.randn(columns, width, device=options.device) / width**0.5).bfloat16().requires_grad_()
    labels, ones = torch.randint(0, columns, (rows,), device=options.device), torch.ones(rows, device=options.device)
    logits = torch.randn(rows, columns, device=options.device).bfloat16()

    def products() -> object:
        with torch.no_grad():
            return hidden @ weight.t(), logits @ weight, logits.t() @ hidden

    losses: dict[str, Callable[[], Tensor]] = {
        "eager": lambda: F.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum"),
        "ours": lambda: linear_cross_entropy_fused(hidden, weight, labels, ones)[0],
    }
    if hasattr(F, "linear_cross_entropy"):
        losses["torch chunked"] = lambda: F.linear_cross_entropy(hidden, weight, labels, reduction="sum")
    return {
        "three products": products,
        **{name: lambda loss=loss: torch.autograd.grad(loss(), [hidden, weight]) for name, loss in losses.items()},
    }


def peak_bytes(work: Callable[[], object], options: Options) -> int:
    """What the device's allocated memory grows by at most during a piece of work; 0 in a rehearsal."""
    if options.rehearse:
        return 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def linear_times(options: Options, timer: Timer) -> None:
    """Linear + cross entropy against its three bare matrix products, and the memory it takes beyond its inputs."""
    for model, (hidden_size, _, _) in MODELS.items():
        contenders = linear_contenders(options, hidden_size)
        peaks = {name: peak_bytes(work, options) / 2**20 for name, work in contenders.items()}
        times = times_of(contenders, options, timer)
        floor = statistics.median(times["three products"])
        show(f"linear + cross entropy {model}", times, {}, floor, "at most 1.15 x the three products")
        print("  memory beyond the inputs, MiB: " + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()))


def times_of(contenders: dict[str, Callable[[], object]], options: Options, timer: Timer) -> dict[str, list[float]]:
    """Milliseconds of each contender, in turns, after three rounds of warming up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds + 3):
        for name, work in contenders.items():
            milliseconds = timer(work)
            if turn >= 3:
                times[name].append(milliseconds)
    return times


def adamw_times(options: Options, timer: Timer, rates: dict[str, float]) -> None:
    """Norm, clip and update of half a billion weights: bfloat16 gradients, a bfloat16 copy out."""
    size = options.size(2**29)
    tensors = AdamwTensors(
        parameters=[torch.randn(size, device=options.device)],
        gradients=[torch.randn(size, device=options.device).bfloat16()],
        exp_avgs=[torch.zeros(size, device=options.device)],
        exp_avg_sqs=[torch.zeros(size, device=options.device)],
        copies=[torch.zeros(size, dtype=torch.bfloat16, device=options.device)],
    )
    settings = AdamwSettings(learning_rate=1e-3, step=10, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    scale = torch.tensor(0.5, device=options.device)
    contenders: dict[str, Callable[[], object]] = {
        "clip + torch": lambda: (torch.nn.utils.get_total_norm(tensors.gradients), adamw_reference(tensors, settings, scale)),
        "ours": lambda: (squared_norm_fused(tensors.gradients), adamw_fused(tensors, settings, scale)),
    }
    times = times_of(contenders, options, timer)
    floor = 30 * size / rates["copy"]  # 12 + 2 bytes read and 12 + 2 written a weight, and the gradient once more for its norm
    show(f"adamw, {size} weights", times, {}, floor, "at least 85 % of floor")


CASES = {"rms_norm": norm_cases, "swiglu": swiglu_cases, "rope": rope_cases, "cross_entropy": cross_entropy_cases}


def main(options: Options) -> None:
    """Run the chosen cases."""
    if not options.rehearse and not torch.cuda.is_available():
        raise SystemExit("ops_gpu.py needs an NVIDIA GPU; --rehearse runs it on small tensors on a CPU")
    obstacle = native.why_not_fused(torch.device(options.device), torch.bfloat16)
    if obstacle:
        raise SystemExit(f"the kernels cannot run here: {obstacle}")
    made = provenance.current_provenance()
    print(f"command: {made.command}\nversions: {made.versions}\ncommit: {made.commit}")
    card = "a CPU, rehearsal" if options.rehearse else torch.cuda.get_device_name()
    print(f"device: {card}, kernels {native.describe(torch.device(options.device))}")
    torch.manual_seed(0)
    timer = Timer(options.device)
    rates = probes(options, timer)
    for name, cases in CASES.items():
        if not options.only or name in options.only:
            for case in cases(options):
                measure(case, options, timer, rates)
    if not options.only or "linear_cross_entropy" in options.only:
        linear_times(options, timer)
    if not options.only or "adamw" in options.only:
        adamw_times(options, timer, rates)


if __name__ == "__main__":
    main(tyro.cli(Options))
