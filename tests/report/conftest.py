import json
import math
import random

import pytest

from megatron_astro.config.command_line import options_to_toml
from megatron_astro.config.run import DataConfig, ModelConfig, ParallelConfig, RunConfig, TrainingConfig
from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.evaluation.compare import compare_folder
from megatron_astro.evaluation.scores import exam_estimate, group_scores
from megatron_astro.exam_records import Answer, DocumentLoss, ExamRecord, LossRecord
from megatron_astro.records import (
    LETTERS,
    CertificateRecord,
    HeldoutPoint,
    LayoutRecord,
    ParityRecord,
    Provenance,
    StageSeconds,
    StagesRecord,
    StartRecord,
    StepMetrics,
    to_plain,
    write_record,
)

PROVENANCE = Provenance(command="c", created="2026-01-01T00:00:00+00:00", versions={"python": "3.11"})


def sitting(method, correct, model):
    """A record of 120 taught questions, each from its own document, and 40 control questions without one."""
    answers = []
    for number, right in enumerate(correct):
        taught = number < 120
        letter = LETTERS[number % 4]
        answers.append(
            Answer(
                question_id=f"q{number}",
                group="taught" if taught else "control",
                topic="stars",
                source=f"document-{number}" if taught else None,
                scores=(-1.0, -2.0, -3.0, -4.0),
                predicted=letter if right else LETTERS[(number + 1) % 4],
                right=letter,
                correct=right,
                question=f"What is the mass of star <{number}> & its *companion*?",
                options=tuple(f"{number + step} solar masses" for step in range(4)),
            )
        )
    return ExamRecord(
        model=model,
        weights_sha256=model,
        question_set="exam.jsonl",
        question_set_sha256="0",
        method=method,
        method_version=f"{method}-1",
        num_shots=0 if method == "answer_text" else 2,
        num_questions=len(answers),
        accuracy=exam_estimate(answers).mean,
        standard_error=exam_estimate(answers).standard_error,
        answers=tuple(answers),
        seconds=12.0,
        provenance=PROVENANCE,
        by_group=group_scores(answers),
        prompts_sha256="p",
    )


def before_and_after(taught, control):
    """Two lists of 160: right or wrong; each group is given as how many are right before, gained, and lost."""
    before, after = [], []
    for (right, gained, lost), number in ((taught, 120), (control, 40)):
        before += [True] * right + [False] * (number - right)
        after += [False] * lost + [True] * (right - lost) + [True] * gained + [False] * (number - right - gained)
    return before, after


def loss_record(shift, model):
    noise = random.Random(4)
    documents = [
        DocumentLoss(
            document_id=f"d{number}", loss_sum=140 * (3.5 + noise.gauss(0, 0.2) + shift * (1 + number % 3)), num_tokens=140
        )
        for number in range(16)
    ]
    loss = sum(document.loss_sum for document in documents) / (16 * 140)
    return LossRecord(
        model=model,
        weights_sha256=model,
        documents="corpus.jsonl",
        documents_sha256="0",
        num_documents=16,
        num_tokens=16 * 140,
        loss=loss,
        perplexity=math.exp(loss),
        by_document=tuple(documents),
        provenance=PROVENANCE,
        window=2048,
    )


def parity_record(difference):
    return ParityRecord(
        source="base",
        target="megatron",
        probe_tokens=(1, 2),
        max_abs_logit_difference=difference,
        tolerance=1e-4,
        source_probe_loss=3.0,
        target_probe_loss=3.0,
        num_tensors=272,
        num_parameters=134_515_008,
        provenance=PROVENANCE,
    )


def certificate_record(root):
    return CertificateRecord(
        digest_format="1", root=root, num_bytes=8, num_parameters=2, settings={}, tensors=(), provenance=PROVENANCE
    )


def write_training(folder):
    config = RunConfig(
        run_folder=folder,
        model=ModelConfig(init_from=folder / "base"),
        data=DataConfig(prefixes=(folder / "data/train",), seq_length=256),
        parallel=ParallelConfig(pp=2, first_stage_layers=19),
        training=TrainingConfig(steps=30, global_batch_size=8),
    )
    (folder / "resolved.toml").write_text(options_to_toml(config))
    steps = [
        StepMetrics(
            step=step,
            loss=3.2 - 1.2 * step / 30 + 0.12 * math.sin(5 * step),
            grad_norm=1.0,
            learning_rate=5e-4,
            consumed_samples=8 * step,
            consumed_tokens=2048 * step,
            step_seconds=8.0 if step > 1 else 16.0,
            tokens_per_second=256.0 if step > 1 else 128.0,
        )
        for step in range(1, 31)
    ]
    write_lines(folder / "metrics.jsonl", steps)
    write_lines(
        folder / "heldout.jsonl", [HeldoutPoint(step=step, loss=3.5 - 0.015 * step, tokens=2400) for step in (0, 10, 20, 30)]
    )


def write_lines(path, records):
    path.write_text("".join(json.dumps(to_plain(record)) + "\n" for record in records))


def write_surroundings(folder):
    layout = LayoutRecord(
        world_size=2, tp=1, pp=2, dp=1, sequence_parallel=False, distributed_optimizer=True,
        layers_per_stage=(19, 11), device="cpu", dtype="float32", backend="gloo",
    )  # fmt: skip
    write_record(folder / "layout.json", layout)
    names = ("model", "tokens_train", "to_megatron", "before_answer_text", "training", "after_answer_text")
    write_record(
        folder / "stages.json", StagesRecord(stages=tuple(StageSeconds(name=name, seconds=9.5 * len(name)) for name in names))
    )
    write_record(folder / "base/parity.json", parity_record(3.1e-5))
    write_record(folder / "hf/parity.json", parity_record(2.4e-5))
    write_record(folder / "base/certificate.json", certificate_record("b" * 64))
    write_record(folder / "hf/certificate.json", certificate_record("a" * 64))
    dataset = DatasetRecord(
        tokenizer="base", tokenizer_sha256="0", vocabulary_size=49152, num_documents=136, num_tokens=20_480, dtype="uint16", lowest_id=0,
        highest_id=49151, append_eod=True, documents="corpus.jsonl", documents_sha256="0", bin_sha256="0", idx_sha256="0",
        provenance=PROVENANCE,
    )  # fmt: skip
    write_record(folder / "data/train.json", dataset)
    continuation = {"prompt": "The escape speed of the Sun is", "before": " 11 km/s <b>", "after": " 618 km/s."}
    (folder / "generation.json").write_text(json.dumps(continuation))


def make_run_folder(folder, taught=(30, 45, 5), control=(10, 3, 2), loss_shift=-0.25):
    """A run folder as a finished run leaves it, compared: how the exam by answer text went, and how the loss moved."""
    folder.mkdir()
    write_training(folder)
    write_surroundings(folder)
    for method, outcome in (("answer_text", (taught, control)), ("letter", ((29, 8, 7), (10, 2, 2)))):
        before, after = before_and_after(*outcome)
        write_record(folder / f"evaluation/before_{method}.json", sitting(method, before, "runs/base"))
        write_record(folder / f"evaluation/after_{method}.json", sitting(method, after, "runs/hf"))
    write_record(folder / "evaluation/heldout_before.json", loss_record(0.0, "runs/base"))
    write_record(folder / "evaluation/heldout_after.json", loss_record(loss_shift, "runs/hf"))
    compare_folder(folder / "evaluation")
    return folder


@pytest.fixture
def make_run(tmp_path):
    return lambda **outcome: make_run_folder(tmp_path / "run", **outcome)


@pytest.fixture
def add_start():
    """Give a run folder the record of its start and checkpoints: two certified ones, one that is not, one that is unfinished."""

    def add(folder, start_format):
        start = StartRecord(
            path="base", format=start_format, probe_tokens=(1, 2), source_probe_loss=2.1234, start_probe_loss=2.1235, tolerance=0.02,
            proven_by="transformers", root="f" * 64, num_parameters=2, provenance=PROVENANCE,
        )  # fmt: skip
        write_record(folder / "start.json", start)
        for name, root in (("step_000002", "c"), ("step_000001", "d"), ("step_000003.partial", "e")):
            write_record(folder / "checkpoints" / name / "certificate.json", certificate_record(root * 64))
        (folder / "checkpoints/step_000004").mkdir()

    return add
