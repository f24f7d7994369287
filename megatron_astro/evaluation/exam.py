"""What an exam is: checked questions, worked examples and wording, ready to be asked. No torch, so that bad input is told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.errors import ConfigError
from megatron_astro.evaluation.prompts import Template, load_template
from megatron_astro.evaluation.questions import choose_shots, read_questions
from megatron_astro.records import Method, Question


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is asked and how: checked questions, worked examples, wording."""

    path: Path
    method: Method
    template: Template
    questions: tuple[Question, ...]
    shots: tuple[Question, ...]
    shots_path: Path | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WorkedExamples:
    """Which questions to show with their answers: the first `number` of a file (None: two, if there is a file)."""

    path: Path | None = None
    number: int | None = None


NO_EXAMPLES = WorkedExamples()


def prepare_exam(
    path: Path, method: Method, examples: WorkedExamples = NO_EXAMPLES, *, template_path: Path | None = None, limit: int = 0
) -> Exam:
    """Read and check everything an exam needs; `limit` above 0 keeps the first questions of every group only.

    Raises
    ------
    ConfigError, DataError
        Examples are asked for without a file of them, a number is negative, or a file is not what it must be.
    """
    num_shots = _number_of_shots(examples)
    if limit < 0:
        raise ConfigError(f"limit is {limit}; give zero or more questions")
    questions = read_questions(path)
    shots = choose_shots(examples.path, num_shots, questions) if examples.path else []
    kept = _first_of_each_group(questions, limit) if limit else questions
    remark = (
        (f"a trial on {len(kept)} of the {len(questions)} questions (limit {limit} a group)",)
        if len(kept) < len(questions)
        else ()
    )
    return Exam(
        path=path,
        method=method,
        template=load_template(template_path, method),
        questions=tuple(kept),
        shots=tuple(shots),
        shots_path=examples.path if shots else None,
        remarks=remark,
    )


def _number_of_shots(examples: WorkedExamples) -> int:
    number = (2 if examples.path else 0) if examples.number is None else examples.number
    if number < 0:
        raise ConfigError(f"num_shots is {number}; give zero or more worked examples")
    if number and examples.path is None:
        raise ConfigError(f"num_shots is {number}, but no file of worked examples is named; add --shots FILE")
    return number


def _first_of_each_group(questions: Sequence[Question], limit: int) -> list[Question]:
    kept: dict[str, int] = {}
    chosen = []
    for question in questions:
        kept[question.group] = kept.get(question.group, 0) + 1
        if kept[question.group] <= limit:
            chosen.append(question)
    return chosen
