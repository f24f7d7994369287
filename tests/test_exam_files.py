import json

import pytest

from megatron_astro.errors import DataError
from megatron_astro.exam_files import read_exam

ROW = "What is a star?,A planet,A ball of gas,A moon,A comet"


@pytest.mark.parametrize("content", [f"question,choice0,choice1,choice2,choice3,answer\n{ROW},1\n", f"\n{ROW},B\n"])
def test_csv_with_and_without_header(tmp_path, content):
    path = tmp_path / "exam.csv"
    path.write_text(content)
    (question,) = read_exam(path)
    assert (question.id, question.question, question.answer) == ("exam:2", "What is a star?", "B")
    assert question.options == ("A planet", "A ball of gas", "A moon", "A comet")


def test_jsonl_is_read_as_by_the_exam(tmp_path):
    path = tmp_path / "exam.jsonl"
    path.write_text(
        json.dumps({"id": "q", "question": "A star?", "options": ["a", "b", "c", "d"], "answer": "C", "source": "2401.00001"})
    )
    (question,) = read_exam(path)
    assert (question.id, question.answer, question.source) == ("q", "C", "2401.00001")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "holds no questions"),
        (b"question,a,b,c,d,answer\n", "holds no questions"),
        (ROW.encode() + b"\n", "row 1: 5 columns; give a question"),
        (ROW.encode() + b",E\n", "row 1: the answer is 'E'; give a letter"),
        (ROW.encode() + b",\xe9\n", "is not a CSV file in UTF-8"),
    ],
)
def test_bad_csv_is_named(tmp_path, content, text):
    path = tmp_path / "exam.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        read_exam(path)
    assert str(path) in str(caught.value)


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*exam\.csv: No such file"):
        read_exam(tmp_path / "exam.csv")
