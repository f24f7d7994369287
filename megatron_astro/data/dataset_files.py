"""The files of a dataset beside `.bin/.idx`, written together or not at all: names, loss mask, sidecar with checksums of them all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_astro.corpus_records import DatasetRecord, FileChecksums, InputFile
from megatron_astro.data.checksums import file_checksums
from megatron_astro.data.indexed import dataset_file, map_file, token_dtype
from megatron_astro.data.indexed_writer import write_index
from megatron_astro.data.merge_parts import MergedParts
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.data.tokenizer import TextTokenizer
from megatron_astro.errors import DataError
from megatron_astro.files import fsync_path
from megatron_astro.provenance import combined_sha256, current_provenance, file_sha256
from megatron_astro.records import to_plain

PUBLISHING = "publishing"  # in the work folder: the files of the dataset are being put in their places
IDS_AT_ONCE = 1 << 20  # two to four MiB: they stay in the processor's cache


def mask_prefix(prefix: Path) -> Path:
    """The loss mask's own prefix: PREFIX_mask.bin/.idx, a dataset of uint8 with the documents and lengths of PREFIX."""
    return prefix.with_name(f"{prefix.name}_mask")


def dataset_files(prefix: Path, *, loss_mask: bool) -> list[Path]:
    """The files that the sidecar has checksums of, `.idx` first."""
    files = [dataset_file(prefix, ending) for ending in ("idx", "bin", "ids")]
    mask = [dataset_file(mask_prefix(prefix), ending) for ending in ("idx", "bin")]
    return [*files, *(mask if loss_mask else [])]


def id_range(ids: npt.NDArray[np.integer]) -> tuple[int, int]:
    """The lowest and the highest id; (0, 0) where there are none."""
    parts = [ids[start : start + IDS_AT_ONCE] for start in range(0, ids.size, IDS_AT_ONCE)]
    return min((int(part.min()) for part in parts), default=0), max((int(part.max()) for part in parts), default=0)


def write_files(
    request: TokenizeRequest, tokenizer: TextTokenizer, documents: MergedParts, input_digests: list[str], num_rejected: int
) -> DatasetRecord:
    """Write all files of a dataset, the `.idx` last of all; return the sidecar."""
    prefix, dtype = request.prefix, token_dtype(tokenizer.vocabulary_size)
    files, sidecar = dataset_files(prefix, loss_mask=request.conversations), dataset_file(prefix, "json")
    with published(documents.folder, [*files, sidecar]) as partial:
        lengths = documents.lengths()
        write_index(partial[files[0]], lengths, dtype)
        documents.write_tokens(partial[files[1]], "bin", dtype.itemsize)
        documents.write_names(partial[files[2]])
        if request.conversations:
            write_index(partial[files[3]], lengths, np.dtype(np.uint8))
            documents.write_tokens(partial[files[4]], "mask", 1)
        lowest, highest = id_range(map_file(partial[files[1]]).view(dtype))
        record = DatasetRecord(
            tokenizer=str(tokenizer.folder),
            tokenizer_sha256=tokenizer.sha256,
            vocabulary_size=tokenizer.vocabulary_size,
            num_documents=lengths.size,
            num_tokens=int(lengths.sum(dtype=np.int64)),
            dtype=dtype.name,
            lowest_id=lowest,
            highest_id=highest,
            append_eod=request.eos_id is not None,
            eod_id=request.eos_id,
            prepend_bos=request.bos_id is not None,
            bos_id=request.bos_id,
            shuffle_seed=request.shuffle_seed,
            loss_mask=request.conversations,
            num_rejected=num_rejected,
            documents=", ".join(map(str, request.inputs)),
            documents_sha256=combined_sha256(input_digests),
            split=request.split,
            bin_sha256=file_sha256(partial[files[1]]),
            idx_sha256=file_sha256(partial[files[0]]),
            provenance=current_provenance(),
            inputs=_inputs(request.inputs, input_digests, documents),
            files=tuple(_checksums(path, partial[path], prefix) for path in files),
        )
        partial[sidecar].write_text(json.dumps(to_plain(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


@contextmanager
def published(folder: Path, files: list[Path]) -> Iterator[dict[Path, Path]]:
    """Where to write each file of a dataset meanwhile; when the block ends well they take their places, the first of them last."""
    written = {path: folder / f"merged.{path.name}" for path in files}
    try:
        yield written
        for path in written.values():
            fsync_path(path)
        (folder / PUBLISHING).touch()
        fsync_path(folder)
        for path in reversed(files):
            written[path].replace(path)
            fsync_path(path.parent)
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)


def _inputs(paths: tuple[Path, ...], digests: list[str], documents: MergedParts) -> tuple[InputFile, ...]:
    counts = documents.count_by_input(len(paths))
    return tuple(
        InputFile(path=str(path), sha256=digest, num_documents=count)
        for path, digest, count in zip(paths, digests, counts, strict=True)
    )


def _checksums(path: Path, written: Path, prefix: Path) -> FileChecksums:
    name = path.name.removeprefix(prefix.name)
    return FileChecksums(name=name, num_bytes=written.stat().st_size, crc32c=file_checksums(written))


def described_file(prefix: Path, checksums: FileChecksums) -> Path:
    """The path of a file that a sidecar describes; DataError where its name leads elsewhere."""
    for path in dataset_files(prefix, loss_mask=True):
        if path.name == prefix.name + checksums.name:
            return path
    raise DataError(f"{dataset_file(prefix, 'json')} describes a file {checksums.name!r}, which no dataset has; write it again")
