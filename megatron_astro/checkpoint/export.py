"""A Hugging Face folder from a model spread over ranks, without gathering it: each rank writes its slices into the same files.

The files are laid out to the last byte beforehand, exactly as a conversion lays them out (`huggingface_writer.py`), so the result is
byte for byte what converting the training checkpoint gives. Data-parallel replicas share the work. A rank holds one block of rows of a
slice beside its model (`reader.BLOCK_BYTES`), whatever the model's size.

The folder carries a temporary name, and no config.json, until every rank's bytes are on the disk and were found whole.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from megatron_astro.checkpoint.certify import CERTIFICATE_FILE
from megatron_astro.checkpoint.conversion_plan import check_space
from megatron_astro.checkpoint.huggingface import HuggingFaceReader, copy_model_files, read_config
from megatron_astro.checkpoint.huggingface_writer import HuggingFaceWriter
from megatron_astro.checkpoint.journal import partial_folder
from megatron_astro.checkpoint.pieces import Piece, row_blocks, write_rectangle
from megatron_astro.checkpoint.reader import BLOCK_BYTES, StoredReader
from megatron_astro.checkpoint.sharded_model import LocalParameter, local_parameters
from megatron_astro.checkpoint.shards import SHARD_BYTES, FileLayout
from megatron_astro.checkpoint.shared_certificate import When, certify_together
from megatron_astro.errors import CheckpointError
from megatron_astro.files import fault_and_remedy, fsync_path, fsync_tree
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.records import write_record

logger = logging.getLogger(__name__)


class ModelInMemory(StoredReader):
    """What a writer must know of a model whose weights lie in no file: sizes, one type, config and tokenizer."""

    def __init__(self, model_files: Path, sizes: LlamaSizes, dtype: torch.dtype) -> None:
        self.path = model_files
        self.sizes = sizes
        self.config = read_config(model_files)
        self.tensors = {}
        self._dtype = dtype

    def dtype(self, name: str) -> torch.dtype:
        """The same for every tensor."""
        del name
        return self._dtype

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence."""
        copy_model_files(self.path, folder)


def export_hugging_face(
    folder: Path,
    model: Sequence[GPTModel],
    sizes: LlamaSizes,
    *,
    model_files: Path,
    certify: When = "auto",
    expected_root: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the new folder `folder` together with all ranks, each its chunks of layers, in the model's own type.

    Parameters
    ----------
    model_files
        Folder of the config.json and the tokenizer to put beside the weights.
    certify
        Whether all ranks read the folder back and rank 0 writes its `certificate.json`.
    expected_root
        Root that the certificate must have: that of the training checkpoint saved at the same step.
    shard_bytes
        Size of the weight files.

    Raises
    ------
    CheckpointError
        The disk is full, `folder` is there already, or what was read back has another root. The model is as it was.
    """
    started = time.monotonic()
    dtype: torch.dtype = model[0].config.params_dtype
    described, writer = ModelInMemory(model_files, sizes, dtype), HuggingFaceWriter()
    shards = writer.plan(described, dtype, shard_bytes)
    layouts = [layout for shard in shards for layout in writer.lay_out(shard, described, dtype)]
    partial, is_first = partial_folder(folder), dist.get_rank() == 0
    with _errors_named(folder):
        if is_first:
            _prepare(folder, layouts)
        dist.barrier()
        _write_own_slices(partial, layouts, _own_share(model, sizes))
        dist.barrier()
        if is_first:
            writer.finish(partial, described, dtype, shards)
        dist.barrier()
        _certify(partial, folder.name, certify, expected_root)
        if is_first:
            fsync_tree(partial)
            partial.rename(folder)
            fsync_path(folder.parent)
            logger.info("export: %s in %.1f s, each rank wrote its own slices", folder, time.monotonic() - started)
        dist.barrier()


def _certify(partial: Path, name: str, when: When, expected_root: str | None) -> None:
    """Read back what was written, with all ranks; CheckpointError when it is something else."""
    certificate = certify_together(HuggingFaceReader(partial), when, name)
    if certificate is None:
        return
    if certificate.root != (expected_root or certificate.root):
        raise CheckpointError(
            f"what was exported to {partial} has the root {certificate.root}, the checkpoint of the same step {expected_root}; "
            "check the disk and the memory of this machine, and convert the checkpoint with convert_checkpoint"
        )
    if dist.get_rank() == 0:
        write_record(partial / CERTIFICATE_FILE, certificate)


def _prepare(folder: Path, layouts: Sequence[FileLayout]) -> None:
    """Make the files in their full length, with all that is not a weight."""
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; move it away to export the model")
    check_space(folder, sum(layout.num_bytes for layout in layouts))
    partial = partial_folder(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for layout in layouts:
        with (partial / layout.file).open("wb") as stream:
            stream.truncate(layout.num_bytes)
            for begin, content in layout.literals:
                stream.seek(begin)
                stream.write(content)


def _own_share(model: Sequence[GPTModel], sizes: LlamaSizes) -> list[LocalParameter]:
    """The parameters this rank writes: of those it owns, its turn among the replicas."""
    owned = [parameter for chunk in model for parameter in local_parameters(chunk, sizes) if parameter.content.owned]
    return owned[parallel_state.get_data_parallel_rank() :: parallel_state.get_data_parallel_world_size()]


def _write_own_slices(folder: Path, layouts: Sequence[FileLayout], parameters: Sequence[LocalParameter]) -> None:
    """Write rows and columns to their places; they are on the disk when this returns."""
    places: dict[str, Piece] = {name: piece for layout in layouts for name, (piece,) in layout.pieces.items()}
    with ExitStack() as stack:
        descriptors: dict[Path, int] = {}
        for parameter in parameters:
            for part in parameter.content.slices:
                piece = places[part.name]
                if piece.file not in descriptors:
                    descriptors[piece.file] = os.open(folder / piece.file, os.O_WRONLY)
                    stack.callback(os.close, descriptors[piece.file])
                rows = parameter.data[part.begin : part.end].reshape(part.rows[1] - part.rows[0], -1)
                for begin, end in row_blocks(rows.shape, rows.shape[1] * rows.element_size(), BLOCK_BYTES):
                    block = rows[begin:end].cpu().contiguous()
                    span = (part.rows[0] + begin, part.rows[0] + end)
                    write_rectangle(piece, span, part.columns, block, descriptors[piece.file])
        for descriptor in descriptors.values():
            os.fsync(descriptor)


@contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder} could not be exported: {fault_and_remedy(error, partial_folder(folder))}, remove {partial_folder(folder)}, and "
            "convert the run's newest checkpoint with convert_checkpoint"
        ) from error
