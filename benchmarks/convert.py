"""Conversion against a plain copy of the same bytes: `convert.py FOLDER [--shapes 1b 3b 8b] [--repeats 3]`.

Random bfloat16 models of Llama-3.2-1B, 3B and Llama-3-8B shape. In each repeat, one after the other: `cp -r` and fsync of the model;
Hugging Face to Megatron; Megatron to Hugging Face, both with the default proof for large models (every byte read back and
hashed, certificate written).
Each is a process of its own; the order turns from repeat to repeat. The system's cache of files is dropped right before each clock starts:
a conversion's seconds are from its plan to the renamed, flushed folder. Those of the whole process, with Python and PyTorch starting from
a cold cache, stand beside them. A pause before each lets the disk finish what the one before left.
With --peer also megatron-core's own save of the 1B shape: model built on the CPU, weights random, `dist_checkpointing.save`, fsync.
Prints a record in Markdown.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 128256,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
}  # fmt: skip
SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "tie_word_embeddings")
SHAPES = {
    "1b": dict(zip(SIZES, (16, 2048, 8192, 32, True), strict=True)),
    "3b": dict(zip(SIZES, (28, 3072, 8192, 24, True), strict=True)),
    "8b": dict(zip(SIZES, (32, 4096, 14336, 32, False), strict=True)),
}
PAUSE = 5  # seconds, before each
CONVERT = """
import json, logging, os, sys, time
from pathlib import Path
from megatron_astro.checkpoint.convert import convert
logging.disable(logging.INFO)
os.sync()
Path("/proc/sys/vm/drop_caches").write_text("3")
began, before = time.monotonic(), time.process_time()
done = convert(Path(sys.argv[1]), Path(sys.argv[2]), verification="readback")
print(json.dumps({"seconds": time.monotonic() - began, "peak": done.peak_bytes, "cpu": time.process_time() - before,
                  "root": done.certificate.root}))
"""
PEER = """
import json, os, sys, time
from pathlib import Path
import torch
from megatron.core import dist_checkpointing
from megatron_astro.config.run import ParallelConfig
from megatron_astro.checkpoint.memory_bound import peak_resident_bytes
from megatron_astro.files import fsync_tree
from megatron_astro.model.build import build_stage
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.launch import single_process
from megatron_astro.parallel.plan import make_plan

def main():
    sizes = LlamaSizes.from_hf_config(json.loads((Path(sys.argv[1]) / "config.json").read_text()))
    heads = {"num_heads": sizes.num_heads, "num_kv_heads": sizes.num_kv_heads}
    with single_process():
        model = build_stage(sizes, make_plan(ParallelConfig(), 1, num_layers=sizes.num_layers, **heads), dtype="bfloat16")
        Path(sys.argv[2]).mkdir()
        began = time.monotonic()
        dist_checkpointing.save(model.sharded_state_dict(), sys.argv[2], validate_access_integrity=False)
        fsync_tree(Path(sys.argv[2]))
        print(json.dumps({"seconds": time.monotonic() - began, "peak": peak_resident_bytes()}))

if __name__ == "__main__":
    main()
"""


def make_model(folder, shape):
    """Write a random model tensor by tensor; return the bytes of its weights."""
    import torch

    from megatron_astro.checkpoint.names import named_shapes
    from megatron_astro.checkpoint.safetensors_files import TensorEntry, write_safetensors
    from megatron_astro.model.sizes import LlamaSizes

    config = {**COMMON, **SHAPES[shape]}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shapes = named_shapes(LlamaSizes.from_hf_config(config))
    entries = [TensorEntry(name=name, dtype=torch.bfloat16, shape=size) for name, size in shapes.items()]
    numbers = torch.randn(2**24).bfloat16()  # repeated with a shift: no two tensors are alike, and none takes long to make
    tensors = (
        numbers.roll(place).repeat(-(-entry.num_bytes // 2 // len(numbers)))[: entry.num_bytes // 2].reshape(entry.shape)
        for place, entry in enumerate(entries)
    )
    return write_safetensors(folder / "model.safetensors", entries, tensors).num_bytes


def drop_cache():
    """Empty the system's cache of files; needs root."""
    os.sync()
    time.sleep(PAUSE)
    Path("/proc/sys/vm/drop_caches").write_text("3")


def copy(source, target):
    """`cp -r` and fsync; seconds, and those of the processor."""
    from megatron_astro.files import fsync_tree

    drop_cache()
    began, before = time.monotonic(), sum(os.times()[:4])
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    fsync_tree(target)
    return {"seconds": time.monotonic() - began, "cpu": sum(os.times()[:4]) - before}


def in_process(program, *arguments):
    """Run a program that prints one JSON object; that, and the seconds of the whole process."""
    drop_cache()
    began = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.monotonic() - began}


def measure(folder, shape, repeats):
    """All repeats of one shape, and the bytes of its weights."""
    model, megatron, back, copied = (folder / name for name in (shape, "megatron", "back", "copy"))
    shutil.rmtree(folder, ignore_errors=True)
    num_bytes, rows = make_model(model, shape), []
    for repeat in range(repeats):
        row = {"load": os.getloadavg()[0]}

        def copied_plainly():
            row["cp"] = copy(model, copied)
            shutil.rmtree(copied)

        def converted():
            row["to Megatron"] = in_process(CONVERT, model, megatron)
            row["to Hugging Face"] = in_process(CONVERT, megatron, back)

        for task in (copied_plainly, converted) if repeat % 2 == 0 else (converted, copied_plainly):
            task()
        if row["to Megatron"]["root"] != row["to Hugging Face"]["root"]:
            sys.exit("the two conversions disagree")
        shutil.rmtree(megatron)
        shutil.rmtree(back)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    return num_bytes, rows


def spread(values, digits=2):
    """Median, and least and most."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def report(shape, num_bytes, rows):
    """Lines of a table."""
    for what in ("cp", "to Megatron", "to Hugging Face"):
        seconds = [row[what]["seconds"] for row in rows]
        ratio = "1" if what == "cp" else spread([row["cp"]["seconds"] / row[what]["seconds"] for row in rows])
        others = ["-", spread([row[what]["cpu"] for row in rows], 1), "-"]
        if what != "cp":
            others = [spread([row[what][key] for row in rows], 1) for key in ("process", "cpu")]
            others.append(f"{max(row[what]['peak'] for row in rows) / 2**20:.0f}")
        cells = [
            shape,
            f"{num_bytes / 1e9:.2f}",
            what,
            spread(seconds),
            f"{num_bytes / 1e9 / statistics.median(seconds):.2f}",
            ratio,
        ]
        print("| " + " | ".join([*cells, *others]) + " |")


def main():
    """Measure what was asked for and print the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder on the disk to measure; removed at the end")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1b"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "megatron-core"))
    print(
        f"`{shlex.join(sys.argv)}`; {platform.platform()}, Python {platform.python_version()}, {versions}, {os.cpu_count()} cores"
    )
    print(f"Load average before: {os.getloadavg()}\n")
    print("| shape | GB | what | seconds | GB/s | share of cp's rate | whole process, s | CPU, s | peak, MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        for shape in options.shapes:
            report(shape, *measure(options.folder, shape, options.repeats))
        if options.peer:
            make_model(options.folder / "peer", "1b")
            peer = [
                in_process(PEER, options.folder / "peer", options.folder / f"saved{number}") for number in range(options.repeats)
            ]
            seconds, peak = [row["seconds"] for row in peer], max(row["peak"] for row in peer)
            print(f"| 1b | - | megatron-core save | {spread(seconds)} | - | - | - | - | {peak / 2**20:.0f} |")
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    print(f"\nLoad average after: {os.getloadavg()}")


if __name__ == "__main__":
    main()
