"""The whole workflow on two CPU cores: a real LLaMA, made a little more astronomical, and the proof. `make demo` runs it.

Every stage is a command a user could type. A stage that is done is not done again: its command and the files it read are noted, and
only a change in one of them makes it stale. An interrupted training goes on from its last checkpoint.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.checkpoint.gguf import packaged_gguf
from megatron_astro.errors import AstroError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RUN = Path("runs/demo")
BASE, BASE_MEGATRON, TRAINED = RUN / "base/huggingface", RUN / "base/megatron", RUN / "hf"
CORPUS, EXAM, SHOTS = (Path("examples/tiny_cpu") / name for name in ("corpus.jsonl", "exam.jsonl", "exam_shots.jsonl"))
PRESET = Path("examples/tiny_cpu/train.toml")
NUM_STEPS = 26
PROMPT = "The escape speed from the surface of the Sun is"
DONE = RUN / ".stages"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command, what it makes, what it reads, and how long it took on the two cores it was written on."""

    name: str
    says: str
    command: tuple[str | Path, ...]
    makes: tuple[Path, ...]
    reads: tuple[Path, ...] = ()
    usual_seconds: int
    goes_on: bool = False
    """Whether a second try continues what the first left (training) instead of starting over."""


def tool(name: str, *arguments: str | Path) -> tuple[str | Path, ...]:
    """A command of tools/, run by this interpreter."""
    return (sys.executable, f"tools/{name}.py", *arguments)


def all_stages() -> list[Stage]:
    """The flow: model and corpus in, report out."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    checkpoint = RUN / f"checkpoints/step_{NUM_STEPS:06d}"
    return [
        Stage(
            name="model",
            says="SmolLM2-135M-Instruct out of its GGUF file into a Hugging Face folder",
            command=tool("convert_checkpoint", packaged_gguf(), BASE),
            makes=(BASE,),
            usual_seconds=8,
        ),
        *(_tokenize(split) for split in ("train", "heldout")),
        Stage(
            name="to_megatron",
            says="Hugging Face to Megatron, logits compared",
            command=tool("convert_checkpoint", BASE, BASE_MEGATRON),
            reads=(BASE / "model.safetensors",),
            makes=(BASE_MEGATRON,),
            usual_seconds=10,
        ),
        *_examine("before", BASE),
        Stage(
            name="training",
            says="continual pretraining, two pipeline stages on two processes",
            command=(*torchrun, "tools/train.py", "--preset", PRESET),
            reads=(PRESET, BASE_MEGATRON / "parity.json", RUN / "data/train.bin"),
            makes=(RUN / "checkpoints", RUN / "metrics.jsonl", RUN / "heldout.jsonl", RUN / "ledger"),
            usual_seconds=430,
            goes_on=True,
        ),
        Stage(
            name="to_huggingface",
            says="the trained model back to a Hugging Face folder",
            command=tool("convert_checkpoint", checkpoint, TRAINED),
            reads=(checkpoint / "metadata.json",),
            makes=(TRAINED,),
            usual_seconds=10,
        ),
        Stage(
            name="generation",
            says="plain transformers continues a sentence with the model before and after",
            command=(sys.executable, "examples/tiny_cpu/generate.py", PROMPT, BASE, TRAINED, RUN / "generation.json"),
            reads=(TRAINED / "model.safetensors",),
            makes=(RUN / "generation.json",),
            usual_seconds=8,
        ),
        *_examine("after", TRAINED),
    ]


def _tokenize(split: str) -> Stage:
    prefix = RUN / "data" / split
    return Stage(
        name=f"tokens_{split}",
        says=f"the corpus's {split} documents into an indexed dataset",
        command=tool(
            "tokenize_corpus", CORPUS, "--tokenizer", BASE, "--split", split, "--eod-token", "<|endoftext|>", "--output", prefix
        ),
        reads=(CORPUS, BASE / "tokenizer.json"),
        makes=tuple(prefix.with_name(prefix.name + ending) for ending in (".bin", ".idx", ".json")),
        usual_seconds=1,
    )


def _examine(when: str, model: Path) -> list[Stage]:
    weights = model / "model.safetensors"
    stages = []
    for method, extra, seconds in (("answer_text", (), 16), ("letter", ("--shots", SHOTS), 20)):
        output = RUN / f"evaluation/{when}_{method}.json"
        stages.append(
            Stage(
                name=f"{when}_{method}",
                says=f"the exam {when} training, by {method.replace('_', ' ')}",
                command=tool("evaluate", model, "--set", EXAM, "--method", method, *extra, "--output", output),
                reads=(weights, EXAM, SHOTS),
                makes=(output,),
                usual_seconds=seconds,
            )
        )
    output = RUN / f"evaluation/heldout_{when}.json"
    measure = tool("measure_loss", model, "--documents", CORPUS, "--split", "heldout", "--output", output)
    stages.append(
        Stage(
            name=f"{when}_loss",
            says=f"the loss on held-out documents {when} training",
            command=measure,
            reads=(weights, CORPUS),
            makes=(output,),
            usual_seconds=10,
        )
    )
    return stages


def fingerprint(stage: Stage) -> str:
    """SHA-256 over the stage's command and the files it reads."""
    digest = hashlib.sha256(shlex.join(map(str, stage.command[1:])).encode())
    for path in stage.reads:
        digest.update(path.read_bytes() if path.stat().st_size < 2**20 else _large_file_state(path))
    return digest.hexdigest()


def _large_file_state(path: Path) -> bytes:
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}".encode()


def run_stage(stage: Stage) -> float:
    """Run one stage, unless it is done; the seconds its command took, then or now."""
    note_path, mark = DONE / f"{stage.name}.json", fingerprint(stage)
    note = json.loads(note_path.read_text()) if note_path.exists() else {}
    if note.get("fingerprint") == mark and note.get("seconds") and all(path.exists() for path in stage.makes):
        print("  done already", flush=True)
        return float(note["seconds"])
    spent = 0.0  # what goes on from an earlier try costs that try's seconds too
    if stage.goes_on and note.get("fingerprint") == mark:
        spent = note.get("spent", 0.0)
    else:
        _remove(stage.makes)
    note_path.write_text(json.dumps({"fingerprint": mark, "spent": spent}))
    started_at_seconds = time.monotonic()
    print("  " + shlex.join(map(str, stage.command)).replace(sys.executable, "python"), flush=True)
    try:
        done = subprocess.run([str(part) for part in stage.command], env=_environment(stage), check=False)
    finally:
        seconds = spent + time.monotonic() - started_at_seconds
        note_path.write_text(json.dumps({"fingerprint": mark, "spent": seconds}))
    if done.returncode:
        sys.exit(f"demo: stopped, the stage '{stage.name}' failed (see above); run `make demo` again to go on from there")
    note_path.write_text(json.dumps({"fingerprint": mark, "seconds": seconds}))
    return seconds


def _environment(stage: Stage) -> dict[str, str]:
    """One thread for each of two training processes; PyTorch's own choice of threads elsewhere."""
    return {**os.environ, "OMP_NUM_THREADS": "1"} if stage.goes_on else dict(os.environ)


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Run every stage that is not done, then write the report."""
    os.chdir(ROOT)
    DONE.mkdir(parents=True, exist_ok=True)
    try:
        stages = all_stages()
    except AstroError as error:
        sys.exit(f"error: {error}")
    print(
        f"demo: {len(stages) + 1} stages, usually {sum(stage.usual_seconds for stage in stages) / 60:.0f} minutes on 2 cores",
        flush=True,
    )
    seconds: dict[str, float] = {}
    pace = 1.0
    for number, stage in enumerate(stages, start=1):
        left = sum(later.usual_seconds for later in stages[number - 1 :]) * pace
        print(f"[{number}/{len(stages) + 1}] {stage.says} (about {left / 60:.1f} minutes left in all)", flush=True)
        seconds[stage.name] = run_stage(stage)
        pace = sum(seconds.values()) / sum(done.usual_seconds for done in stages[:number])
    times = {"stages": [{"name": name, "seconds": round(value, 2)} for name, value in seconds.items()]}
    (RUN / "stages.json").write_text(json.dumps(times, indent=2) + "\n")
    print(f"[{len(stages) + 1}/{len(stages) + 1}] the report", flush=True)
    done = subprocess.run([str(part) for part in tool("write_report", RUN)], check=False)
    if done.returncode:
        sys.exit("demo: the report failed (see above); run `make demo` again")
    print(f"demo: done in {sum(seconds.values()) / 60:.1f} minutes of work; open {RUN / 'report.html'}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; run `make demo` again to go on from there")
