"""Set a multiple-choice exam to a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from command import run_command
from tyro.conf import Positional, arg


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Set a four-option exam to a Hugging Face model and write every answer, with scores, as JSON."""

    model: Annotated[Path, Positional]
    """Hugging Face folder of the model."""
    set: Annotated[Path, arg(name="set")]
    """JSONL file with a question on each line."""
    method: Literal["letter", "answer_text"]
    """letter: the next token after the options; answer_text: the likeliest option text, per token, options unseen."""
    output: Path
    """JSON file to write."""
    shots: Path | None = None
    """JSONL file of worked examples; none: no examples."""
    num_shots: int | None = None
    """Worked examples before each question, from the top of the shots file; none: 2 if a file is named."""
    template: Path | None = None
    """TOML file with another wording; none: the built-in one of the method."""
    limit: int = 0
    """Questions of each group to ask, from its first on, for a trial; 0: all."""
    batch_size: int = 16
    """Questions a forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format to compute in; auto: float32 on a CPU, bfloat16 on a GPU."""


def evaluate(options: EvaluateOptions) -> str:
    """Check the exam, load the model, ask, write."""
    from megatron_astro.evaluation.exam import WorkedExamples, prepare_exam
    from megatron_astro.files import require_writable_file
    from megatron_astro.records import write_record

    require_writable_file(options.output, options.set, options.shots, options.template)
    examples = WorkedExamples(path=options.shots, number=options.num_shots)
    exam = prepare_exam(options.set, options.method, examples, template_path=options.template, limit=options.limit)

    from megatron_astro.evaluation.model import load_model  # torch only now: a bad exam is told at once
    from megatron_astro.evaluation.sitting import describe_scores, sit_exam
    from megatron_astro.parallel.memory import keep_freed_memory

    keep_freed_memory()
    record = sit_exam(load_model(options.model, options.device, options.dtype), exam, options.batch_size)
    write_record(options.output, record)
    return f"{describe_scores(record)}. Wrote {options.output}."


if __name__ == "__main__":
    run_command(EvaluateOptions, evaluate)
