"""Certificates: which weights a checkpoint holds, whatever its format, and that a conversion wrote the weights it read.

The digest's format is in `digest.py`; here tensors become its leaves, block after block, a tensor on each core.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.buffers import Buffers
from megatron_astro.checkpoint.differences import describe_differences, find_differences
from megatron_astro.checkpoint.digest import FORMAT, DataHash, in_order, weights_root
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.pieces import tensor_bytes
from megatron_astro.checkpoint.reader import TensorSource, WeightReader, blocks
from megatron_astro.checkpoint.safetensors_files import DTYPE_NAMES, DTYPES
from megatron_astro.errors import CheckpointError, DataError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.progress import track
from megatron_astro.provenance import current_provenance
from megatron_astro.records import (
    CertificateRecord,
    CertifiedLogits,
    CertifiedSource,
    ParityRecord,
    TensorDigest,
    read_record,
    write_record,
)

logger = logging.getLogger(__name__)

CERTIFICATE_FILE = "certificate.json"


def certify(reader: WeightReader, *, rounded_to: torch.dtype | None = None) -> CertificateRecord:
    """Digest every tensor of a checkpoint, rounded to a type first if asked; a few blocks are in memory at a time.

    CheckpointError when a weight cannot be read.
    """
    shapes, buffers = named_shapes(reader.sizes), Buffers(hashing_threads())

    def digest(name: str) -> TensorDigest:
        with buffers.lend() as buffer:
            return digest_tensor(reader, name, shapes[name], rounded_to, buffer)

    with ThreadPoolExecutor(hashing_threads(), thread_name_prefix="digest") as threads:
        digests = threads.map(digest, shapes)
        try:
            found = list(track(digests, total=len(shapes), title="Hashing", unit="tensors", logger=logger))
        except CheckpointError:
            threads.shutdown(cancel_futures=True)
            raise
    return certificate_of(reader.sizes, found)


def certificate_of(sizes: LlamaSizes, tensors: Iterable[TensorDigest]) -> CertificateRecord:
    """The certificate of a model whose tensors were digested."""
    tensors = in_order(tensors)
    return CertificateRecord(
        digest_format=FORMAT,
        root=weights_root(tensors),
        num_bytes=sum(_num_bytes(tensor) for tensor in tensors),
        num_parameters=sum(prod(tensor.shape) for tensor in tensors),
        settings=_settings(sizes),
        tensors=tensors,
        provenance=current_provenance(),
    )


def digest_tensor(
    reader: TensorSource, name: str, shape: Sequence[int], rounded_to: torch.dtype | None = None, buffer: Tensor | None = None
) -> TensorDigest:
    """One tensor's digest, read block after block into `buffer` (None: memory of its own)."""
    dtype, data = rounded_to or reader.dtype(name), DataHash()
    for _, block in blocks(reader, name, shape, buffer=buffer):
        data.update(tensor_bytes(block.to(dtype)))
    return TensorDigest(name=name, dtype=type_name(reader.path, name, dtype), shape=tuple(shape), data=data.root())


def hashing_threads() -> int:
    """A thread for each core this process may use."""
    return len(os.sched_getaffinity(0))


def write_conversion_certificate(
    source: Path,
    *,
    original: CertificateRecord,
    expected: CertificateRecord,
    written: CertificateRecord,
    folder: Path,
    parity: ParityRecord | None,
) -> CertificateRecord:
    """Put `certificate.json` into a conversion's target once what was read back is, bit for bit, what the source holds.

    `original` certifies the source as it was read, `expected` the same once rounded to the types written, `written` the target as it was
    read back. CheckpointError, naming the tensors, when the target holds anything else than expected.
    """
    if found := find_differences(expected, written):
        raise CheckpointError(
            f"what was written is not what {source} holds: {describe_differences(found)}; nothing was kept. Check the disk and the "
            "memory of this machine, and convert again"
        )
    _refuse_other_than_certified(source, original)
    ends = CertifiedSource(path=str(source), root=original.root, rounded_root=expected.root)
    certificate = replace(written, source=ends, logits=_summary(parity) if parity else None)
    write_record(folder / CERTIFICATE_FILE, certificate)
    return certificate


def _refuse_other_than_certified(source: Path, read: CertificateRecord) -> None:
    """CheckpointError where a source came with a certificate and tensors of it are others now: damaged, or changed since."""
    path = source / CERTIFICATE_FILE
    if not path.is_file():
        return
    claimed = {tensor.name: tensor for tensor in read_certificate(path).tensors}
    wrong = [
        tensor.name
        for tensor in read.tensors  # a vocabulary that grows changes shapes, which the certificate says nothing about
        if tensor.name in claimed
        and (claimed[tensor.name].dtype, claimed[tensor.name].shape) == (tensor.dtype, tensor.shape)
        and claimed[tensor.name].data != tensor.data
    ]
    if wrong:
        raise CheckpointError(
            f"{source} does not hold what its {CERTIFICATE_FILE} says: {', '.join(wrong[:8])} differ ({len(wrong)} in all); "
            f"fetch it again, or remove {CERTIFICATE_FILE} if the change was meant"
        )


def certificate_beside(path: Path) -> Path | None:
    """The certificate in a checkpoint's own folder, if there is one."""
    certificate = path / CERTIFICATE_FILE
    return certificate if certificate.is_file() else None


def read_certificate(path: Path) -> CertificateRecord:
    """Read a certificate; DataError when it is none, of another format, or its tensors do not make its root."""
    certificate = read_record(path, CertificateRecord)
    if certificate.digest_format != FORMAT:
        raise DataError(f"{path} is of the format {certificate.digest_format!r}; this program knows {FORMAT!r}: certify again")
    if weights_root(certificate.tensors) != certificate.root:
        raise DataError(f"{path} was changed: its tensors do not make its root {certificate.root}; certify the checkpoint again")
    return certificate


def type_name(path: Path, name: str, dtype: torch.dtype) -> str:
    """A type as certificates name it; CheckpointError for one that has no name there."""
    if dtype not in DTYPE_NAMES:
        raise CheckpointError(f"{path}: {name} is stored as {dtype}; supported are {', '.join(DTYPES)}")
    return DTYPE_NAMES[dtype]


def _summary(parity: ParityRecord) -> CertifiedLogits:
    return CertifiedLogits(
        max_abs_logit_difference=parity.max_abs_logit_difference,
        tolerance=parity.tolerance,
        num_tokens=len(parity.probe_tokens),
    )


def _num_bytes(tensor: TensorDigest) -> int:
    return prod(tensor.shape) * DTYPES[tensor.dtype].itemsize


def _settings(sizes: LlamaSizes) -> dict[str, bool | int | float | None]:
    """Every number that decides what the weights compute, by name; those of RoPE scaling as `rope_scaling.NAME`."""
    settings = asdict(sizes)
    scaling = settings.pop("rope_scaling") or {}
    return settings | {f"rope_scaling.{name}": value for name, value in scaling.items()}
