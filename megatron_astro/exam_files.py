"""Reading an exam's file: four-option questions as JSONL, or as the CSV files that MMLU comes in; checked whole."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.errors import DataError
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
    """Read and check every question of an exam's JSONL file.

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


def read_exam(path: Path) -> list[Question]:
    """Read an exam by its ending: `.csv` in MMLU's columns, anything else as JSONL."""
    return read_csv_questions(path) if path.suffix == ".csv" else read_questions(path)


def read_csv_questions(path: Path) -> list[Question]:
    """Read MMLU's CSV: question, four options, and the answer as a letter or as 0 to 3; a header line may stand first.

    Raises
    ------
    DataError
        The file cannot be read, or a row has other columns or another answer; the message names file and row.
    """
    questions: list[Question] = []
    for number, row in _csv_rows(path):
        where = f"{path}, row {number}"
        if len(row) != NUM_OPTIONS + 2:
            raise DataError(f"{where}: {len(row)} columns; give a question, four options and the answer")
        question, *options, answer = (cell.strip() for cell in row)
        if answer in ("0", "1", "2", "3"):
            answer = LETTERS[int(answer)]
        if answer not in LETTERS:
            raise DataError(f"{where}: the answer is {answer!r}; give a letter from A to D, or a number from 0 to 3")
        first, second, third, fourth = options
        questions.append(
            Question(
                id=f"{path.stem}:{number}",
                question=question,
                options=(first, second, third, fourth),
                answer=next(letter for letter in LETTERS if letter == answer),
            )
        )
    if not questions:
        raise DataError(f"{path} holds no questions; give a CSV file with a question, four options and the answer in each row")
    return questions


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows but for the header, each with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.reader(stream), start=1):
                if row and not (number == 1 and row[-1].strip() == "answer"):
                    yield number, row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name an existing CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
