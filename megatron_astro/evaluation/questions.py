"""Reading an exam: a JSONL file of four-option questions, checked whole before the first one is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.errors import ConfigError, DataError
from megatron_astro.records import LETTERS, Question, read_numbered_lines

NUM_OPTIONS = len(LETTERS)


@dataclass(frozen=True, kw_only=True)
class QuestionLine:
    """A line as it is written: options and answer are checked here, so that the message can say what to do."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: str
    group: str = ""
    topic: str = ""
    source: str | None = None


def read_questions(path: Path) -> list[Question]:
    """Read and check every question of an exam.

    Raises
    ------
    DataError
        The file cannot be read or holds no question; or a question has other than four options, an empty or repeated option, an
        empty text or id, an answer that is no letter from A to D, or the id of an earlier one. The message names file and line.
    """
    questions: list[Question] = []
    first_lines: dict[str, int] = {}
    for number, line in read_numbered_lines(path, QuestionLine):
        where = f"{path}, line {number} (id {line.id!r})"
        if line.id in first_lines:
            raise DataError(f"{where}: line {first_lines[line.id]} has the same id; give every question an id of its own")
        first_lines[line.id] = number
        questions.append(_checked_question(line, where))
    if not questions:
        raise DataError(f"{path} holds no questions; write one JSON object with id, question, options and answer on each line")
    return questions


def _checked_question(line: QuestionLine, where: str) -> Question:
    if not line.id or not line.question.strip():
        raise DataError(f"{where}: the {'question' if line.id else 'id'} is empty; give every question an id and a text")
    if len(line.options) != NUM_OPTIONS:
        raise DataError(f"{where}: the question has {len(line.options)} options; give exactly four")
    options = tuple(option.strip() for option in line.options)
    for position, option in enumerate(options):
        if not option:
            raise DataError(f"{where}: option {LETTERS[position]} is empty; give four options with a text")
        if option in options[:position]:
            earlier = LETTERS[options.index(option)]
            raise DataError(
                f"{where}: options {earlier} and {LETTERS[position]} are both {option!r}; give four different options"
            )
    matching = [letter for letter in LETTERS if letter == line.answer]
    if not matching:
        raise DataError(f"{where}: the answer is {line.answer!r}; give one of the letters A, B, C, D")
    first, second, third, fourth = options
    return Question(
        id=line.id,
        question=line.question.strip(),
        options=(first, second, third, fourth),
        answer=matching[0],
        group=line.group,
        topic=line.topic,
        source=line.source,
    )


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
