"""The plan of a cleaning: what it reads, cut into shards, and where its pieces lie; kept in the work folder so that a rerun goes on."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_astro.config.cleaning import CleaningFiles, CleaningRules
from megatron_astro.config.command_line import options_to_toml
from megatron_astro.corpus.decontamination import DecontaminationStep
from megatron_astro.corpus.paper_ids import read_papers, source_papers
from megatron_astro.corpus.shards import Role, Shard, cut_shards, find_files
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.exam_files import read_exam
from megatron_astro.files import make_folder, write_atomic
from megatron_astro.provenance import current_provenance, file_sha256
from megatron_astro.records import Provenance, Question, read_record, write_record

REPORT_NAME = "report.json"
DOCUMENTS_NAME = "documents.jsonl"


@dataclass(frozen=True, kw_only=True)
class CleaningPlan:
    """A cleaning to do; `digest` covers the options, the files and the shards, but not who does the work."""

    digest: str
    output: str
    inputs: tuple[str, ...]
    replay_inputs: tuple[str, ...]
    exams: tuple[str, ...]
    num_questions: int
    unsearchable_questions: tuple[str, ...]
    exam_papers: dict[str, str]
    """Papers that exams were made from: key (see paper_ids) -> what says so."""
    shards: tuple[Shard, ...]
    provenance: Provenance

    @property
    def work(self) -> Path:
        """The folder of intermediate files."""
        return Path(self.output) / "work"

    def piece(self, kind: str, shard: int) -> Path:
        """Where a shard's intermediate file of one kind lies."""
        return self.work / kind / f"{shard:05d}.jsonl"

    @property
    def documents_path(self) -> Path:
        """The clean corpus."""
        return Path(self.output) / DOCUMENTS_NAME

    @property
    def report_path(self) -> Path:
        """The report, whose presence says that the cleaning is complete."""
        return Path(self.output) / REPORT_NAME


def _of_corpus(files: Sequence[Path], shard_bytes: int) -> list[Shard]:
    shards = cut_shards(files, "corpus", shard_bytes)
    if not shards:
        raise DataError(f"{', '.join(map(str, files))}: there is nothing in it; name files that hold documents")
    return shards


def make_plan(files: CleaningFiles, rules: CleaningRules, shard_bytes: int) -> tuple[CleaningPlan, list[Question]]:
    """Plan a cleaning, and read its questions on the way; nothing is written.

    Raises
    ------
    ConfigError
        Replay files and replay fraction do not go together, a file is named twice, or output and input lie inside each other.
    """
    if bool(files.replay) != (rules.replay_fraction > 0):
        raise ConfigError(
            f"replay names {len(files.replay)} files and replay_fraction is {rules.replay_fraction}; give both, or neither of them"
        )
    if not files.documents:
        raise ConfigError("no documents are named; name files of documents, or folders of such files")
    _require_apart(files.output.resolve(), [*files.documents, *files.replay])
    inputs, replay_inputs = find_files(files.documents), find_files(files.replay)
    if repeated := {path.resolve() for path in inputs} & {path.resolve() for path in replay_inputs}:
        raise ConfigError(f"{repeated.pop()} is both a corpus file and a replay file; name it once")
    for path in (*files.exams, *([files.exam_papers] if files.exam_papers else [])):
        if not path.is_file():
            raise DataError(f"cannot read {path}: no such plain file; name an existing one")
    questions = [question for path in files.exams for question in read_exam(path)]
    plan = CleaningPlan(
        digest=_digest(files, rules, {"corpus": inputs, "replay": replay_inputs}, shard_bytes), output=str(files.output.resolve()),
        inputs=tuple(map(str, inputs)), replay_inputs=tuple(map(str, replay_inputs)), exams=tuple(map(str, files.exams)),
        num_questions=len(questions),
        unsearchable_questions=DecontaminationStep(rules.decontamination, questions, rules.skip).unsearchable,
        exam_papers=source_papers(questions, read_papers(files.exam_papers) if files.exam_papers else []),
        shards=(*_of_corpus(inputs, shard_bytes), *cut_shards(replay_inputs, "replay", shard_bytes)),
        provenance=current_provenance(),
    )  # fmt: skip
    return plan, questions


def _require_apart(output: Path, inputs: Iterable[Path]) -> None:
    for path in inputs:
        if output.is_relative_to(path.resolve()):
            raise ConfigError(f"the output {output} is inside the folder {path} that is read; name another output")
        if path.resolve().is_relative_to(output):
            raise ConfigError(f"{path} is read, and is inside the output folder {output}; name another output")


def settle_plan(plan: CleaningPlan, rules: CleaningRules) -> CleaningPlan:
    """Write the plan down, or take up the one of the same cleaning that is there.

    Raises
    ------
    ConfigError
        The output folder holds another cleaning or other files.
    """
    output, path = Path(plan.output), plan.work / "plan.json"
    if path.exists():
        earlier = read_record(path, CleaningPlan)
        if earlier.digest != plan.digest:
            raise ConfigError(
                f"{output} holds a cleaning of other files or with other options (see its resolved.toml); "
                "name another folder, or remove this one"
            )
        return earlier
    if any(file.is_file() and not file.name.startswith(("resolved.toml", "plan.json")) for file in output.rglob("*")):
        raise ConfigError(f"{output} holds other files; name a new or an empty folder")
    make_folder(plan.work)
    write_atomic(output / "resolved.toml", options_to_toml(rules))
    write_record(path, plan)
    return plan


def _digest(files: CleaningFiles, rules: CleaningRules, inputs: Mapping[Role, Iterable[Path]], shard_bytes: int) -> str:
    digest = hashlib.sha256(f"{options_to_toml(rules)}\n{shard_bytes}\n".encode())
    for role, paths in inputs.items():
        for path in paths:
            status = path.stat()
            digest.update(f"{role}\0{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    for kind, paths in (("exam", files.exams), ("exam papers", [files.exam_papers] if files.exam_papers else [])):
        for path in paths:
            digest.update(f"{kind}\0{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
