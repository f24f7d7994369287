"""Certificates: which weights a checkpoint holds, whatever its format, and that a conversion wrote the weights it read.

The digest's format is in `digest.py`; here tensors become its leaves, one group in memory at a time, blocks hashed on all cores.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.differences import describe_differences, find_differences
from megatron_astro.checkpoint.digest import FORMAT, data_roots, hashing_threads, in_order, weights_root
from megatron_astro.checkpoint.distributed import DistributedReader
from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
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
# Training certifies the checkpoints it saves up to this size of weights. The other ranks wait meanwhile.
LARGEST_TRAINED_BYTES = 4_000_000_000


def certify(reader: WeightReader, *, rounded_to: torch.dtype | None = None) -> CertificateRecord:
    """Digest every tensor of a checkpoint, rounded to a type first if asked; one group is in memory at a time.

    CheckpointError when a weight cannot be read.
    """
    tensors = in_order(_digests(reader, rounded_to))
    return CertificateRecord(
        digest_format=FORMAT,
        root=weights_root(tensors),
        num_bytes=sum(_num_bytes(tensor) for tensor in tensors),
        num_parameters=sum(prod(tensor.shape) for tensor in tensors),
        settings=_settings(reader.sizes),
        tensors=tensors,
        provenance=current_provenance(),
    )


def write_conversion_certificate(
    source: WeightReader, target: WeightReader, *, rounded_to: torch.dtype | None, parity: ParityRecord | None
) -> CertificateRecord:
    """Put `certificate.json` into a conversion's target once it was read back and holds, bit for bit, what the source does.

    Where the conversion rounds (`rounded_to`) the source's own root is another one; the certificate names it, and the root of the
    source once rounded, which is the target's. CheckpointError, naming the tensors, when the target holds anything else.
    """
    original = certify(source)
    expected = original if rounded_to is None else certify(source, rounded_to=rounded_to)
    written = certify(target)
    if found := find_differences(expected, written):
        raise CheckpointError(
            f"what was written is not what {source.path} holds: {describe_differences(found)}; nothing was kept. Check the disk and the "
            "memory of this machine, and convert again"
        )
    ends = CertifiedSource(path=str(source.path), root=original.root, rounded_root=expected.root)
    certificate = replace(written, source=ends, logits=_summary(parity) if parity else None)
    write_record(target.path / CERTIFICATE_FILE, certificate)
    return certificate


def certify_trained(folder: Path) -> None:
    """Write `certificate.json` into a training checkpoint just saved, if it is small enough; the log says which."""
    reader = DistributedReader(folder)
    num_bytes = sum(group.num_parameters * reader.dtype(group).itemsize for group in tensor_groups(reader.sizes))
    if num_bytes > LARGEST_TRAINED_BYTES:
        logger.info(
            "certificate: none, training does not wait for more than %.1f GB of weights and these are %.1f GB; use certify_checkpoint",
            LARGEST_TRAINED_BYTES / 1e9,
            num_bytes / 1e9,
        )
        return
    certificate = certify(reader)
    write_record(folder / CERTIFICATE_FILE, certificate)
    logger.info("certificate: root %s", certificate.root)


def read_certificate(path: Path) -> CertificateRecord:
    """Read a certificate; DataError when it is none, of another format, or its tensors do not make its root."""
    certificate = read_record(path, CertificateRecord)
    if certificate.digest_format != FORMAT:
        raise DataError(f"{path} is of the format {certificate.digest_format!r}; this program knows {FORMAT!r}: certify again")
    if weights_root(certificate.tensors) != certificate.root:
        raise DataError(f"{path} was changed: its tensors do not make its root {certificate.root}; certify the checkpoint again")
    return certificate


def _digests(reader: WeightReader, rounded_to: torch.dtype | None) -> Iterator[TensorDigest]:
    groups = tensor_groups(reader.sizes)
    with hashing_threads() as threads:
        for group in track(groups, total=len(groups), title="Hashing", unit="groups of tensors", logger=logger):
            yield from _group_digests(reader, group, rounded_to, threads)


def _group_digests(reader: WeightReader, group: Group, rounded_to: torch.dtype | None, threads: Executor) -> list[TensorDigest]:
    """One group's digests; a function of its own, so that the tensors are gone before the next group is read."""
    tensors = [tensor.to(rounded_to or tensor.dtype).contiguous() for tensor in reader.read(group)]
    roots = data_roots([_bytes(tensor) for tensor in tensors], threads)
    return [
        TensorDigest(name=name, dtype=_type_name(reader, name, tensor), shape=tuple(tensor.shape), data=root)
        for name, tensor, root in zip(group.names, tensors, roots, strict=True)
    ]


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes, not copied. [...] -> flat."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _type_name(reader: WeightReader, name: str, tensor: Tensor) -> str:
    if tensor.dtype not in DTYPE_NAMES:
        raise CheckpointError(f"{reader.path}: {name} is stored as {tensor.dtype}; supported are {', '.join(DTYPES)}")
    return DTYPE_NAMES[tensor.dtype]


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
