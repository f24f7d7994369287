"""The three commands of the exam, as a user calls them: evaluate, compare_scores, measure_loss."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_astro.exam_records import ExamRecord, LossRecord
from megatron_astro.records import read_record, write_record

TOOLS = Path(__file__).parents[2] / "tools"
QUESTIONS = [
    {
        "id": "q1",
        "question": "How hot is the Sun?",
        "options": ["5772 K", "12 K", "800 K", "9000 K"],
        "answer": "A",
        "group": "taught",
    },
    {
        "id": "q2",
        "question": "How old is it?",
        "options": ["1 Gyr", "4.6 Gyr", "9 Gyr", "13 Gyr"],
        "answer": "B",
        "group": "taught",
    },
    {
        "id": "q3",
        "question": "Which stars explode?",
        "options": ["All", "None", "Massive", "Cool"],
        "answer": "C",
        "group": "control",
    },
]


def run(tool, *arguments):
    return subprocess.run([sys.executable, str(TOOLS / tool), *map(str, arguments)], capture_output=True, text=True, check=False)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tiny_tokenizer_folder, tmp_path_factory):
    torch.manual_seed(0)
    folder = shutil.copytree(tiny_tokenizer_folder, tmp_path_factory.mktemp("hf") / "model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=256, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sitting(model, tmp_path_factory):
    """One run of evaluate, and the record it wrote."""
    folder = tmp_path_factory.mktemp("sitting")
    exam = write_lines(folder / "exam.jsonl", QUESTIONS)
    done = run("evaluate.py", model, "--set", exam, "--method", "answer_text", "--output", folder / "new" / "scores.json")
    return done, folder / "new" / "scores.json"


def test_evaluate_writes_the_record_and_closes_with_every_group(sitting):
    done, path = sitting
    assert done.returncode == 0, done.stderr
    record = read_record(path, ExamRecord)
    assert [answer.question_id for answer in record.answers] == ["q1", "q2", "q3"]
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("answer_text, 0 worked examples: taught ")
    assert "+-" in done.stdout
    assert "control " in done.stdout


def test_three_options_are_one_sentence_and_nothing_is_written(model, tmp_path):
    exam = write_lines(tmp_path / "exam.jsonl", [QUESTIONS[0], QUESTIONS[1] | {"options": ["1", "2", "3"]}])
    done = run("evaluate.py", model, "--set", exam, "--method", "letter", "--output", tmp_path / "scores.json")
    assert done.returncode == 2
    assert done.stderr == f"error: {exam}, line 2 (id 'q2'): the question has 3 options; give exactly four\n"
    assert not (tmp_path / "scores.json").exists()


def test_different_sets_are_not_subtracted(sitting, tmp_path):
    record = json.loads(sitting[1].read_text())
    write_changed = tmp_path / "other.json"
    write_changed.write_text(json.dumps(record | {"question_set_sha256": "0" * 64}))
    done = run("compare_scores.py", sitting[1], write_changed, "--output", tmp_path / "difference.json")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be subtracted: they differ in question set" in done.stderr
    assert not (tmp_path / "difference.json").exists()


def test_the_same_set_is(sitting, tmp_path):
    write_record(tmp_path / "same.json", read_record(sitting[1], ExamRecord))
    done = run("compare_scores.py", sitting[1], tmp_path / "same.json", "--output", tmp_path / "difference.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answer_text: taught ")
    assert json.loads((tmp_path / "difference.json").read_text())["by_group"][0]["mean"] == 0


def test_measure_loss_takes_the_heldout_documents(model, tmp_path):
    lines = [{"id": "a", "text": "The Sun is a star.", "split": "train"}, {"id": "b", "text": "Stars cool.", "split": "heldout"}]
    documents = write_lines(tmp_path / "corpus.jsonl", lines)
    done = run("measure_loss.py", model, "--documents", documents, "--output", tmp_path / "loss.json")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "loss.json", LossRecord)
    assert [item.document_id for item in record.by_document] == ["b"]
    assert record.window == 256
    assert done.stdout.startswith(f"Loss {record.loss:.4f} nats per token")
