"""Our CPU kernels against the best of PyTorch: eager, `F.*` and torch.compile, interleaved in one process, with the error beside the time.

    python benchmarks/ops.py [--threads 2] [--rounds 9] [--only rms_norm ...]
    python benchmarks/ops.py --threads 1 --clock processor     on a machine that others use too

Memory is kept warm as training keeps it (parallel/memory.py; ops_memory.py shows what that is worth). A time is that of a forward and
a backward pass (AdamW: an update); minimum, median and maximum over the rounds, in milliseconds. An error is the largest difference
from float64, over the largest true value, of outputs and gradients together.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by
import tyro
from torch import Tensor

from megatron_astro import provenance
from megatron_astro.ops import native  # noqa: F401  torch must load the kernels before the module that asks about them

from megatron_astro import _ops  # isort: skip
from megatron_astro.ops.adamw import AdamwSettings, AdamwTensors, adamw_fused, adamw_reference, squared_norm_fused
from megatron_astro.ops.causal_softmax import causal_softmax_fused, causal_softmax_reference
from megatron_astro.ops.cross_entropy import cross_entropy_fused
from megatron_astro.ops.rms_norm import add_rms_norm_fused, add_rms_norm_reference, rms_norm_fused, rms_norm_reference
from megatron_astro.ops.rope import rope_fused, rope_reference
from megatron_astro.ops.swiglu import swiglu_fused, swiglu_reference
from megatron_astro.parallel.memory import keep_freed_memory

EPSILON = 1e-5
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which cases to run and how."""

    threads: int = 2
    """Threads of PyTorch and of our kernels."""
    rounds: int = 9
    """Rounds in which every contender runs once."""
    clock: Literal["wall", "processor"] = "wall"
    """What a time is: what passed, or what the process's threads computed."""
    only: tuple[str, ...] = ()
    """Cases to run; none: all."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One computation on one input: contenders by name, ours under "ours", and the same in float64."""

    name: str
    inputs: list[Tensor]
    grads: list[Tensor]
    contenders: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]]
    truth: Callable[..., Tensor | tuple[Tensor, ...]]
    target: float
    """How many times faster than the best other one it must be."""


def both_passes(function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    """Outputs and gradients."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [
        *outputs,
        *torch.autograd.grad(outputs, inputs, [grad.to(output.dtype) for grad, output in zip(grads, outputs, strict=True)]),
    ]


def fresh(inputs: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copies, for a contender may use its inputs' memory; the copying is not timed."""
    return [tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_() for tensor in inputs]


def error_of(results: list[Tensor], truths: list[Tensor]) -> float:
    """The largest of the tensors' errors."""
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(results, truths, strict=True))


def measure(case: Case, rounds: int, clock: Clock) -> None:
    """Print a line a contender."""
    truths = both_passes(case.truth, fresh(case.inputs, torch.float64), case.grads)
    errors = {name: error_of(both_passes(run, fresh(case.inputs), case.grads), truths) for name, run in case.contenders.items()}
    del truths
    gc.collect()
    seconds: dict[str, list[float]] = {name: [] for name in case.contenders}
    for turn in range(rounds + 2):  # two to warm up
        for name, run in case.contenders.items():
            inputs = fresh(case.inputs)
            started_at = clock()
            both_passes(run, inputs, case.grads)
            if turn >= 2:
                seconds[name].append(clock() - started_at)
    show(case.name, seconds, errors, case.target)


def show(name: str, seconds: dict[str, list[float]], errors: dict[str, float], target: float) -> None:
    """The table of a case, and whether ours reaches its target against the best other."""
    print(f"\n{name}")
    for contender, times in seconds.items():
        low, middle, high = (1e3 * value for value in (min(times), statistics.median(times), max(times)))
        print(f"  {contender:<16}{low:9.2f} min{middle:9.2f} median{high:9.2f} max   error {errors[contender]:.1e}")
    best = min((min(times), contender) for contender, times in seconds.items() if contender != "ours")
    ratio = best[0] / min(seconds["ours"])
    verdict = "reached" if ratio >= target else "MISSED"
    print(f"  {ratio:.2f} times as fast as {best[1]} (minima); target {target}: {verdict}")


def compiled(function: Callable[..., Tensor | tuple[Tensor, ...]]) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """By torch.compile for exactly these shapes."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def norm_cases() -> Iterator[Case]:
    """RMSNorm, alone and after adding a residual."""
    for rows, columns in ((4096, 2048), (2048, 4096)):
        for dtype, target in ((torch.float32, 2.0), (torch.bfloat16, 1.5)):
            hidden, residual, grad = torch.randn(3, rows, columns).to(dtype)
            weight = torch.rand(columns).to(dtype)

            def norm(hidden: Tensor, weight: Tensor) -> Tensor:
                return rms_norm_reference(hidden, weight, EPSILON)

            yield Case(
                name=f"rms_norm {rows} x {columns} {dtype}",
                inputs=[hidden, weight],
                grads=[grad],
                contenders={
                    "eager": norm,
                    "F.rms_norm": lambda hidden, weight: F.rms_norm(hidden, weight.shape, weight, EPSILON),
                    "torch.compile": compiled(norm),
                    "ours": lambda hidden, weight: rms_norm_fused(hidden, weight, EPSILON),
                },
                truth=lambda hidden, weight: F.rms_norm(hidden, weight.shape, weight, EPSILON),
                target=target,
            )
            if rows == 4096:
                yield Case(
                    name=f"add_rms_norm {rows} x {columns} {dtype}",
                    inputs=[hidden, residual, weight],
                    grads=[grad, residual],
                    contenders={
                        "eager": lambda *tensors: add_rms_norm_reference(*tensors, EPSILON),
                        "torch.compile": compiled(lambda *tensors: add_rms_norm_reference(*tensors, EPSILON)),
                        "ours": lambda *tensors: add_rms_norm_fused(*tensors, EPSILON),
                    },
                    truth=lambda a, b, weight: (F.rms_norm(a + b, weight.shape, weight, EPSILON), a + b),
                    target=target,
                )


def swiglu_cases() -> Iterator[Case]:
    """SwiGLU."""
    for dtype in (torch.float32, torch.bfloat16):
        yield Case(
            name=f"swiglu 2048 x 5632 {dtype}",
            inputs=[torch.randn(2048, 2 * 5632).to(dtype)],
            grads=[torch.randn(2048, 5632).to(dtype)],
            contenders={"eager": swiglu_reference, "torch.compile": compiled(swiglu_reference), "ours": swiglu_fused},
            truth=swiglu_reference,
            target=1.2,
        )


def rope_cases() -> Iterator[Case]:
    """RoPE of 32 query and 8 key heads."""
    frequencies = 1 / 5e5 ** (torch.arange(0, 128, 2).float() / 128)
    for dtype in (torch.float32, torch.bfloat16):
        shapes = ((2048, 1, 32, 128), (2048, 1, 8, 128))

        def turn(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            return rope_reference(query, key, frequencies)

        def exact(query: Tensor, key: Tensor) -> tuple[Tensor, ...]:
            angles = torch.outer(torch.arange(query.shape[0]).float(), frequencies).double()
            sine, cosine = (torch.cat([part, part], dim=-1)[:, None, None] for part in (angles.sin(), angles.cos()))
            halves = (tensor.chunk(2, dim=-1) for tensor in (query, key))
            return tuple(torch.cat([a, b], -1) * cosine + torch.cat([-b, a], -1) * sine for a, b in halves)

        yield Case(
            name=f"rope 2048 x (32 + 8) x 128 {dtype}",
            inputs=[torch.randn(shape).to(dtype) for shape in shapes],
            grads=[torch.randn(shape).to(dtype) for shape in shapes],
            contenders={
                "eager": turn,
                "torch.compile": compiled(turn),
                "ours": lambda query, key: rope_fused(query, key, frequencies),
            },
            truth=exact,
            target=2.0,
        )


def cross_entropy_cases() -> Iterator[Case]:
    """Cross entropy of one rank."""
    for rows, columns in ((1024, 32_000), (256, 128_256)):
        labels = torch.randint(0, columns, (rows,))

        def loss(logits: Tensor, labels: Tensor = labels) -> Tensor:
            return F.cross_entropy(logits.float(), labels, reduction="none")

        for dtype in (torch.float32, torch.bfloat16):
            yield Case(
                name=f"cross_entropy {rows} x {columns} {dtype}",
                inputs=[torch.randn(rows, columns).to(dtype)],
                grads=[torch.rand(rows)],
                contenders={
                    "eager": loss,
                    "torch.compile": compiled(loss),
                    "ours": lambda logits, labels=labels: cross_entropy_fused(logits, labels),
                },
                truth=lambda logits, labels=labels: F.cross_entropy(logits, labels, reduction="none"),
                target=2.5,
            )


def softmax_cases() -> Iterator[Case]:
    """Causal softmax; not on the list of targets: shown against what it would take the place of."""
    for dtype in (torch.float32, torch.bfloat16):
        yield Case(
            name=f"causal_softmax 8 x 1024 x 1024 {dtype}",
            inputs=[torch.randn(8, 1024, 1024).to(dtype)],
            grads=[torch.randn(8, 1024, 1024).to(dtype)],
            contenders={
                "eager": lambda scores: causal_softmax_reference(scores, 0.125),
                "torch.compile": compiled(lambda scores: causal_softmax_reference(scores, 0.125)),
                "ours": lambda scores: causal_softmax_fused(scores, 0.125),
            },
            truth=lambda scores: causal_softmax_reference(scores, 0.125),
            target=1.0,
        )


def adamw_times(rounds: int, clock: Clock) -> None:
    """An update of 20 million weights: gradients in float32, and in bfloat16 with a bfloat16 copy out; clipping included."""
    size, settings = 20_000_000, AdamwSettings(learning_rate=1e-3, step=10, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    for gradient_dtype, copies, target in ((torch.float32, 0, 1.0), (torch.bfloat16, 1, 1.5)):
        tensors = AdamwTensors(
            parameters=[torch.randn(size)],
            gradients=[torch.randn(size).to(gradient_dtype)],
            exp_avgs=[torch.zeros(size)],
            exp_avg_sqs=[torch.zeros(size)],
            copies=[torch.zeros(size, dtype=torch.bfloat16)] * copies,
        )
        scale = torch.tensor(0.5)
        contenders: dict[str, Callable[[], object]] = {
            "torch fused": lambda: adamw_reference(tensors, settings),
            "ours": lambda: adamw_fused(tensors, settings),
        }
        clipping: dict[str, Callable[[], object]] = {
            "clip + torch": lambda: (torch.nn.utils.get_total_norm(tensors.gradients), adamw_reference(tensors, settings, scale)),
            "ours": lambda: (squared_norm_fused(tensors.gradients), adamw_fused(tensors, settings, scale)),
        }
        errors = {"torch fused": adamw_error(adamw_reference, gradient_dtype), "ours": adamw_error(adamw_fused, gradient_dtype)}
        errors["clip + torch"] = errors["torch fused"]
        for title, run in (("update", contenders), ("norm, clip and update", clipping)):
            show(f"adamw {title}, 20e6 weights, {gradient_dtype} gradients", times_of(run, rounds, clock), errors, target)


def adamw_error(update: Callable[[AdamwTensors, AdamwSettings], None], gradient_dtype: torch.dtype) -> float:
    """The largest difference from float64 of one update of a million weights."""
    torch.manual_seed(0)
    settings = AdamwSettings(learning_rate=1e-3, step=10, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    p, g, m, v = torch.randn(1_000_000), torch.randn(1_000_000).to(gradient_dtype), torch.randn(1_000_000), torch.rand(1_000_000)
    mean, square = 0.9 * m.double() + 0.1 * g.double(), 0.95 * v.double() + 0.05 * g.double() ** 2
    root = (square / (1 - 0.95**10)).sqrt() + 1e-8
    truth = p.double() * (1 - 1e-4) - 1e-3 * (mean / (1 - 0.9**10)) / root
    update(AdamwTensors(parameters=[p], gradients=[g], exp_avgs=[m], exp_avg_sqs=[v]), settings)
    return float((p.double() - truth).abs().max() / truth.abs().max())


def times_of(contenders: dict[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each contender, interleaved, after two rounds of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, run in contenders.items():
            started_at = clock()
            run()
            if turn >= 2:
                seconds[name].append(clock() - started_at)
    return seconds


def header(options: Options) -> None:
    """Command, versions, processor."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    made = provenance.current_provenance()
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    print(f"command: {made.command}\nversions: {made.versions}\ncommit: {made.commit}")
    print(f"processor: {names[0]}, {os.cpu_count()} cores, {options.threads} threads, kernels {_ops.instruction_set()}")


CASES = {
    "rms_norm": norm_cases, "swiglu": swiglu_cases, "rope": rope_cases, "cross_entropy": cross_entropy_cases,
    "causal_softmax": softmax_cases,
}  # fmt: skip


def main(options: Options) -> None:
    """Run the chosen cases."""
    keep_freed_memory()
    header(options)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    for name, cases in CASES.items():
        if not options.only or name in options.only:
            for case in cases():
                measure(case, options.rounds, clock)
    if not options.only or "adamw" in options.only:
        adamw_times(options.rounds, clock)


if __name__ == "__main__":
    main(tyro.cli(Options))
