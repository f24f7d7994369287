"""Documents or conversations to an indexed dataset, on all cores: the same bytes whatever the number of workers or of interruptions.

    inputs --corpus_parts--> parts --tokenize_part, in workers--> PREFIX.work/part_* --merge_parts--> PREFIX.bin .idx .ids .json

The work folder holds finished parts: a run that was stopped, however it was, goes on with the next part when the command is run again;
where inputs or options have changed since, it starts afresh. The files of the dataset appear at the end, `.idx`, which makes it
complete, last.
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.corpus_parts import CorpusPart, cut_corpus, part_plan
from megatron_astro.data.dataset_files import dataset_files, write_files
from megatron_astro.data.indexed import dataset_file, token_dtype
from megatron_astro.data.merge_parts import RejectedLine, drop_repeated_names, in_written_order, malformed_lines, open_parts
from megatron_astro.data.tokenize_part import PartRecord, PartWorker, TokenizeSettings, part_file
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.data.workers import run_tasks
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import fault_and_remedy, make_folder, write_atomic
from megatron_astro.progress import track
from megatron_astro.provenance import file_sha256
from megatron_astro.records import read_record

logger = logging.getLogger(__name__)

PLAN_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class TokenizeResult:
    """The dataset's sidecar, and how much text went into it."""

    record: DatasetRecord
    num_characters: int

    def summary(self) -> str:
        """Its size and what was put around each document, in a line."""
        record = self.record
        left_out = f"; {record.num_rejected} malformed lines left out" if record.num_rejected else ""
        return (
            f"{record.num_documents} documents, {record.num_tokens} tokens ({self.num_characters / record.num_tokens:.2f} characters a "
            f"token; BOS {record.bos_id}, EOD {record.eod_id}{left_out})"
        )


def rejects_file(prefix: Path) -> Path:
    """Where malformed lines are listed."""
    return dataset_file(prefix, "rejects.jsonl")


def write_dataset(request: TokenizeRequest) -> TokenizeResult:
    """Tokenise a corpus into a new indexed dataset.

    Raises
    ------
    ConfigError
        The dataset exists already, its folder cannot be written to, or another run is writing it.
    DataError
        More lines are malformed than allowed (they are listed in PREFIX.rejects.jsonl), there are no documents, an input cannot be read, a
        worker died, or the disk is full.
    """
    _require_free(request)
    tokenizer = TextTokenizer(request.tokenizer)
    parts = cut_corpus(request.inputs)
    settings = TokenizeSettings(
        tokenizer=request.tokenizer,
        conversations=request.conversations,
        split=request.split,
        bos_id=request.bos_id,
        eos_id=request.eos_id,
        dtype=token_dtype(tokenizer.vocabulary_size).name,
    )
    folder = dataset_file(request.prefix, "work")
    try:
        with _locked(folder), ThreadPoolExecutor(1) as thread:
            _prepare(folder, _plan(request, settings, parts, tokenizer.sha256))
            digests = [thread.submit(file_sha256, path) for path in request.inputs]
            worker = PartWorker(settings=settings, folder=folder)
            records = _tokenize(parts, worker, tokenizer, request.num_workers)
            result = _merge(request, tokenizer, parts, records, folder, digests)
    except OSError as error:
        raise DataError(
            f"{request.prefix} could not be finished: {fault_and_remedy(error, folder)}, then run the same again to go on, or name another "
            "output"
        ) from error
    return result


def _require_free(request: TokenizeRequest) -> None:
    prefix = request.prefix
    idx = dataset_file(prefix, "idx")
    if idx.exists():
        raise ConfigError(f"{idx} exists already; name another output or remove the dataset first")
    make_folder(prefix.parent)
    for path in [*dataset_files(prefix, loss_mask=request.conversations), rejects_file(prefix), dataset_file(prefix, "json")]:
        for source in request.inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise ConfigError(f"{path} is read by this command; name another output")
    sidecar = dataset_file(prefix, "json")
    if sidecar.exists():  # an interrupted run of ours may have left it; anything else is somebody's work
        try:
            read_record(sidecar, DatasetRecord)
        except DataError as error:
            raise ConfigError(
                f"{sidecar} exists and describes no dataset; it would be overwritten: name another output"
            ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the work folder and hold it against other runs for as long as this process lives."""
    plan = folder / "plan.json"
    if folder.exists() and any(folder.iterdir()) and not plan.exists() and not (folder / "lock").exists():
        raise ConfigError(f"{folder} exists and is no work folder of this command; name another output or remove it")
    make_folder(folder)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another run is writing {folder}; wait for it, or name another output") from error
        yield


def _plan(request: TokenizeRequest, settings: TokenizeSettings, parts: list[CorpusPart], tokenizer_sha256: str) -> dict[str, Any]:
    """All that the bytes of finished parts depend on."""
    stats = [path.stat() for path in request.inputs]
    return {
        "format": PLAN_FORMAT,
        "settings": {**asdict(settings), "tokenizer": str(settings.tokenizer), "tokenizer_sha256": tokenizer_sha256},
        "inputs": [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(request.inputs, stats, strict=True)],
        "parts": [part_plan(part) for part in parts],
    }


def _prepare(folder: Path, plan: dict[str, Any]) -> None:
    """Keep the finished parts of a run of the same plan; remove those of another."""
    path = folder / "plan.json"
    content = json.dumps(plan)
    if path.exists() and path.read_text() != content:
        logger.info("%s: inputs or options have changed since it was begun: starting afresh", folder)
        for stale in [*folder.glob("part_*"), path]:
            stale.unlink()
    for stale in folder.glob("*.partial"):
        stale.unlink()
    write_atomic(path, content)


def _tokenize(parts: list[CorpusPart], worker: PartWorker, tokenizer: TextTokenizer, num_workers: int) -> list[PartRecord]:
    """The records of all parts, those already there included."""
    folder = worker.folder
    waiting = [(number, part) for number, part in enumerate(parts) if not part_file(folder, number, "json").exists()]
    if len(waiting) < len(parts):
        logger.info("going on with %s: %d of %d parts are done", folder, len(parts) - len(waiting), len(parts))
    num_workers = min(num_workers, len(waiting))
    done = run_tasks(worker if num_workers > 1 else partial(worker.with_tokenizer, tokenizer), waiting, num_workers)
    for _ in track(done, total=len(waiting), title="Tokenising", unit="parts", logger=logger):
        pass
    return [read_record(part_file(folder, number, "json"), PartRecord) for number in range(len(parts))]


def _merge(
    request: TokenizeRequest,
    tokenizer: TextTokenizer,
    parts: list[CorpusPart],
    records: list[PartRecord],
    folder: Path,
    digests: list[Future[str]],
) -> TokenizeResult:
    rejects = malformed_lines(parts, records)
    num_documents = sum(record.num_documents for record in records)
    if num_documents == 0 and not rejects:
        shutil.rmtree(folder)
        where = ", ".join(map(str, request.inputs))
        raise DataError(f"{where} holds no documents of split {request.split!r}; choose another split or another file")
    if num_documents:
        documents, repeats = drop_repeated_names(open_parts(folder, parts, records), request.inputs)
        rejects += repeats
    _note_rejects(request, rejects, num_documents, folder)
    record = write_files(
        request, tokenizer, in_written_order(documents, request.shuffle_seed), [d.result() for d in digests], len(rejects)
    )
    shutil.rmtree(folder)
    return TokenizeResult(record=record, num_characters=sum(one.num_characters for one in records))


def _note_rejects(request: TokenizeRequest, rejects: list[RejectedLine], num_documents: int, folder: Path) -> None:
    path = rejects_file(request.prefix)
    path.unlink(missing_ok=True)
    if not rejects:
        return
    write_atomic(path, "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects))
    if len(rejects) > request.max_rejects or num_documents == 0:
        shutil.rmtree(folder)
        first = rejects[0]
        raise DataError(
            f"{first.file}, line {first.line}: {first.reason} ({len(rejects)} such lines, all in {path}, and no dataset is written; mend "
            f"them, or leave them out with --max-rejects {len(rejects)})"
        )
    logger.info("%d malformed lines are left out; %s lists them", len(rejects), path)
