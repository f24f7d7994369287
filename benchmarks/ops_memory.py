"""What memory costs: the chunked linear + cross entropy's peak beside PyTorch's, and the allocator that keeps what is freed.

    python benchmarks/ops_memory.py [--threads 1] [--rounds 3]

Every measurement is a process of its own, so that one contender's memory is not another's; they take turns. Times are processor seconds of
a forward and a backward pass, the least of the rounds; the peak is what the process's largest resident size grew by. The two gradients,
which the operation must hand over, are part of every peak: what is held beyond them is shown too.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

SIZES = ((2048, 512, 32_000, "float32"), (1024, 512, 128_256, "float32"), (1024, 512, 128_256, "bfloat16"))
CONTENDERS = ("eager", "torch auto", "torch same chunk", "ours")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure."""

    threads: int = 1
    """Threads of PyTorch and of our kernels."""
    rounds: int = 3
    """Processes a contender and size."""
    child: tuple[str, ...] = ()
    """What a measuring process measures; not for users."""


def peak_bytes() -> int:
    """The largest resident size of this process since the last call of `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Make the resident size of now the largest so far (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def linear_loss(contender: str, rows: int, hidden_size: int, columns: int, dtype_name: str) -> dict[str, float]:
    """One forward and backward pass of a contender, after one on a few rows to load what it needs."""
    import torch
    import torch.nn.functional as F  # noqa: N812  the name PyTorch users know it by

    from megatron_astro.ops.linear_cross_entropy import linear_cross_entropy_fused, rows_a_chunk

    dtype = getattr(torch, dtype_name)
    torch.manual_seed(0)
    hidden = torch.randn(rows, hidden_size).to(dtype).requires_grad_()
    weight = (torch.randn(columns, hidden_size) / hidden_size**0.5).to(dtype).requires_grad_()
    labels, ones = torch.randint(0, columns, (rows,)), torch.ones(rows)

    def loss(hidden: torch.Tensor, labels: torch.Tensor, ones: torch.Tensor) -> torch.Tensor:
        if contender == "ours":
            return linear_cross_entropy_fused(hidden, weight, labels, ones)[0]
        if contender == "eager":
            return F.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum")
        options = torch.nn.LinearCrossEntropyOptions()
        if contender == "torch same chunk":
            chunk = rows_a_chunk(columns, hidden.element_size())
            options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
        return F.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)

    torch.autograd.grad(loss(hidden[:2], labels[:2], ones[:2]), [hidden, weight])
    forget_peak()
    before, started_at = peak_bytes(), time.process_time()
    total = loss(hidden, labels, ones)
    grads = torch.autograd.grad(total, [hidden, weight])
    seconds, peak = time.process_time() - started_at, peak_bytes() - before
    with torch.no_grad():
        truth = sum(
            float(F.cross_entropy(hidden[i : i + 64].float() @ weight.t().float(), labels[i : i + 64], reduction="sum"))
            for i in range(0, rows, 64)
        )
    return {
        "seconds": seconds,
        "peak": peak,
        "error": abs(float(total) - truth) / truth,
        "finite": float(grads[1].isfinite().all()),
    }


def allocator(kept: str) -> dict[str, float]:
    """A forward and a backward pass of four operations on activations, as they follow each other in training; the least of ten."""
    import torch

    from megatron_astro.ops.rms_norm import rms_norm_fused, rms_norm_reference
    from megatron_astro.ops.swiglu import swiglu_fused, swiglu_reference
    from megatron_astro.parallel.memory import keep_freed_memory

    if kept.startswith("kept"):
        keep_freed_memory()
    norm, gate = (rms_norm_fused, swiglu_fused) if kept.endswith("ours") else (rms_norm_reference, swiglu_reference)
    hidden, weight = torch.randn(4096, 4096, requires_grad=True), torch.ones(4096, requires_grad=True)
    seconds = []
    for _ in range(10):
        started_at = time.process_time()
        torch.autograd.grad(gate(norm(hidden, weight, 1e-5)).sum(), [hidden, weight])
        seconds.append(time.process_time() - started_at)
    return {"seconds": min(seconds)}


def ask(options: Options, *what: object) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--threads", options.threads, "--child", *what]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: Options) -> None:
    """Both tables."""
    from megatron_astro import provenance

    made = provenance.current_provenance()
    print(f"command: {made.command}\nversions: {made.versions}\ncommit: {made.commit}\n{options.threads} threads")
    for size in SIZES:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name in CONTENDERS:
                found[name].append(ask(options, "linear", name, *size))
        print(f"\nlinear + cross entropy, {size[0]} tokens x {size[1]}, vocabulary {size[2]}, {size[3]}")
        gradients = (size[0] + size[2]) * size[1] * (4 if size[3] == "float32" else 2) / 2**20
        for name, results in found.items():
            peak = results[0]["peak"] / 2**20
            seconds = [result["seconds"] for result in results]
            print(
                f"  {name:<18}{min(seconds):8.2f} s min{max(seconds):8.2f} s max   peak {peak:7.0f} MiB"
                f"   beyond the gradients {peak - gradients:7.0f} MiB   loss error {results[0]['error']:.1e}"
            )
    print("\nRMSNorm + SwiGLU, 4096 x 4096 float32, processor milliseconds")
    for name in ("given back, PyTorch", "kept, PyTorch", "given back, ours", "kept, ours"):
        times = [1e3 * ask(options, "allocator", name)["seconds"] for _ in range(options.rounds)]
        print(f"  {name:<22}{min(times):8.1f} min{max(times):8.1f} max")


def main(options: Options) -> None:
    """Measure one thing, or compare all."""
    if not options.child:
        compare(options)
        return
    import torch

    torch.set_num_threads(options.threads)
    kind, name, *size = options.child
    result = allocator(name) if kind == "allocator" else linear_loss(name, *map(int, size[:3]), size[3])
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options))
