"""Letting a model sit an exam: questions into words, words into scores, scores into a record."""

import hashlib
import json
import time
from collections.abc import Sequence

from megatron_astro.errors import ConfigError
from megatron_astro.evaluation.answer_text import answer_by_text
from megatron_astro.evaluation.exam import Exam
from megatron_astro.evaluation.letter import answer_by_letter
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.prompts import stem_text, word_answer
from megatron_astro.evaluation.scores import exam_estimate, group_scores
from megatron_astro.exam_records import ExamRecord
from megatron_astro.provenance import current_provenance, file_sha256

METHODS = {"letter": answer_by_letter, "answer_text": answer_by_text}


def sit_exam(loaded: LoadedModel, exam: Exam, batch_size: int) -> ExamRecord:
    """Let a model answer every question, `batch_size` questions a forward pass; the seconds do not count loading the model."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give one question or more")
    started_at_seconds = time.monotonic()
    stems = [stem_text(exam.template, question, exam.shots, exam.method) for question in exam.questions]
    answers, remarks = METHODS[exam.method](loaded, exam.questions, stems, exam.template, batch_size)
    estimate = exam_estimate(answers)
    return ExamRecord(
        model=str(loaded.folder),
        weights_sha256=loaded.weights_sha256,
        question_set=str(exam.path),
        question_set_sha256=file_sha256(exam.path),
        method=exam.method,
        method_version=exam.template.version,
        num_shots=len(exam.shots),
        num_questions=len(answers),
        accuracy=estimate.mean,
        standard_error=estimate.standard_error,
        answers=tuple(answers),
        seconds=time.monotonic() - started_at_seconds,
        provenance=current_provenance(),
        remarks=exam.remarks + remarks,
        by_group=group_scores(answers),
        shots_sha256=file_sha256(exam.shots_path) if exam.shots_path else "",
        prompts_sha256=_prompts_sha256(exam, stems),
        dtype=loaded.dtype_name,
        device=loaded.device.type,
        weights_root=loaded.weights_root,
    )


def describe_scores(record: ExamRecord) -> str:
    """One line: accuracy with its standard error, group by group."""
    groups = [
        f"{group.group or 'all'} {100 * group.accuracy:.1f} %"
        + (f" +- {100 * group.standard_error:.1f}" if group.standard_error is not None else "")
        + f" ({group.num_correct} of {group.num_questions})"
        for group in record.by_group
    ]
    return f"{record.method}, {record.num_shots} worked examples: {', '.join(groups)}; chance is 25 % ({record.seconds:.0f} s)"


def _prompts_sha256(exam: Exam, stems: Sequence[str]) -> str:
    """Digest over everything shown: each stem and the words of its four answers."""
    digest = hashlib.sha256()
    for question, stem in zip(exam.questions, stems, strict=True):
        answers = [word_answer(exam.template, option) for option in question.options]
        digest.update(json.dumps([stem, *answers]).encode())
    return digest.hexdigest()
