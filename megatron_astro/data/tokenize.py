"""Documents or conversations to an indexed dataset, on all cores: the same bytes whatever the number of workers or of interruptions.

    inputs --corpus_parts--> parts --tokenize_part, in workers--> PREFIX.work/part_* --merge_parts--> PREFIX.bin .idx .ids .json

The work folder holds finished parts: a run that was stopped, however it was, goes on with the next part when the command is run again;
where the inputs, the tokenizer or options that decide ids have changed since, it is refused and told what differs (`tokenize_plan`). The
files of the dataset appear at the end, `.idx`, which makes it complete, last.
"""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from megatron_astro.corpus_records import DatasetRecord
from megatron_astro.data.conversations import ChatEncoder
from megatron_astro.data.corpus_parts import CorpusPart, cut_corpus
from megatron_astro.data.dataset_files import write_files
from megatron_astro.data.indexed import token_dtype
from megatron_astro.data.merge_parts import RejectedLine, drop_repeated_names, in_written_order, malformed_lines, open_parts
from megatron_astro.data.tokenize_part import PartRecord, PartWorker, TokenizeSettings, part_file, tokenizer_digests
from megatron_astro.data.tokenize_plan import make_plan
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.data.work_folder import claim, held_work, rejects_file
from megatron_astro.data.workers import run_tasks
from megatron_astro.errors import DataError
from megatron_astro.files import fault_and_remedy, write_atomic
from megatron_astro.progress import track
from megatron_astro.provenance import file_sha256
from megatron_astro.records import read_record

logger = logging.getLogger(__name__)


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


def write_dataset(request: TokenizeRequest) -> TokenizeResult:
    """Tokenise a corpus into a new indexed dataset.

    Raises
    ------
    ConfigError
        A file of the dataset exists already, its folder cannot be written to, another run is writing it, or a stopped run began it with
        other inputs, another tokenizer or other options.
    DataError
        More lines are malformed than allowed (they are listed in PREFIX.rejects.jsonl), there are no documents, an input cannot be read, a
        worker died, or the disk is full.
    """
    tokenizer = TextTokenizer(request.tokenizer)
    try:
        with held_work(request) as folder:
            return _write_dataset(request, tokenizer, folder)
    except OSError as error:
        raise DataError(
            f"{request.prefix} could not be finished: {fault_and_remedy(error, request.prefix.parent)}, then run the command again, which "
            "goes on with the parts that are done, or name another output"
        ) from error


def _write_dataset(request: TokenizeRequest, tokenizer: TextTokenizer, folder: Path) -> TokenizeResult:
    parts = cut_corpus(request.inputs)
    states = [_state(path) for path in request.inputs]
    settings = TokenizeSettings(
        tokenizer=request.tokenizer,
        tokenizer_digests=tokenizer_digests(tokenizer, ChatEncoder(tokenizer) if request.conversations else None),
        conversations=request.conversations,
        split=request.split,
        bos_id=request.bos_id,
        eos_id=request.eos_id,
        dtype=token_dtype(tokenizer.vocabulary_size).name,
    )
    claim(folder, make_plan(request.inputs, settings))
    with ThreadPoolExecutor(1) as thread:
        digests = [thread.submit(_input_sha256, path) for path in request.inputs]
        records = _tokenize(parts, PartWorker(settings=settings, folder=folder), tokenizer, request.num_workers)
    for path, state in zip(request.inputs, states, strict=True):
        if _state(path) != state:
            raise DataError(f"{path} changed while it was read; run the command again when it is complete")
    return _merge(request, tokenizer, parts, records, folder, [digest.result() for digest in digests])


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written to or replaced."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _input_sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; get a complete file") from error


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
    digests: list[str],
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
    record = write_files(request, tokenizer, in_written_order(documents, request.shuffle_seed), digests, len(rejects))
    return TokenizeResult(record=record, num_characters=sum(one.num_characters for one in records))


def _note_rejects(request: TokenizeRequest, rejects: list[RejectedLine], num_documents: int, folder: Path) -> None:
    path = rejects_file(request.prefix)
    if not rejects:
        path.unlink(missing_ok=True)
        return
    written = folder / "merged.rejects"
    write_atomic(written, "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects))
    written.replace(path)
    if len(rejects) > request.max_rejects or num_documents == 0:
        shutil.rmtree(folder)
        first = rejects[0]
        raise DataError(
            f"{first.file}, line {first.line}: {first.reason} ({len(rejects)} such lines, all in {path}, and no dataset is written; mend "
            f"them, or leave them out with --max-rejects {len(rejects)})"
        )
    logger.info("%d malformed lines are left out; %s lists them", len(rejects), path)
