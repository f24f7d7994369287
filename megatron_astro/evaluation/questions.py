"""Choosing the worked examples of an exam; its questions are read by `exam_files`."""

from collections.abc import Sequence
from pathlib import Path

from megatron_astro.errors import ConfigError, DataError
from megatron_astro.exam_files import NUM_OPTIONS, read_questions
from megatron_astro.records import Question

__all__ = ["NUM_OPTIONS", "choose_shots", "read_questions"]


def choose_shots(path: Path, num_shots: int, exam: Sequence[Question]) -> list[Question]:
    """The first worked examples of a file; one that the exam also asks is an error, for it would give an answer away."""
    shots = read_questions(path)
    if num_shots > len(shots):
        raise ConfigError(f"{path} holds {len(shots)} worked examples, fewer than the {num_shots} asked for; ask for fewer")
    asked = {question.question.casefold(): question.id for question in exam}
    for shot in shots[:num_shots]:
        if shot.question.casefold() in asked:
            raise DataError(
                f"{path}: the worked example {shot.id!r} is also question {asked[shot.question.casefold()]!r} of the exam; "
                "leave it out of one of them"
            )
    return shots[:num_shots]
