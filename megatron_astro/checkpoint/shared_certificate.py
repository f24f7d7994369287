"""The certificate of a checkpoint that all ranks can see, hashed together: each rank its share of the tensors, rank 0 the root."""

import logging
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Literal

import torch.distributed as dist

from megatron_astro.checkpoint.certify import certificate_of, digest_tensor, hashing_threads
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.records import CertificateRecord, TensorDigest

logger = logging.getLogger(__name__)

When = Literal["auto", "always", "never"]

# What `auto` lets a rank read and hash while training waits: some seconds, as one core hashes about 2 GB/s and disks read 1 or more.
LARGEST_SHARE_BYTES = 4_000_000_000


def certify_together(reader: WeightReader, when: When, what: str) -> CertificateRecord | None:
    """The certificate on every rank, or None where `when` says there is none to be; the log says which and why.

    Every tensor is read back from the files, by one of the ranks. `what` names the checkpoint in the log, whose folder may still have a
    temporary name. CheckpointError when a weight cannot be read.
    """
    if reason := _reason_against(reader, when):
        logger.info("certificate: none for %s, %s", what, reason)
        return None
    shapes = named_shapes(reader.sizes)
    own = list(shapes)[dist.get_rank() :: dist.get_world_size()]
    with ThreadPoolExecutor(max(1, hashing_threads() // dist.get_world_size()), thread_name_prefix="digest") as threads:
        digests = list(threads.map(lambda name: digest_tensor(reader, name, shapes[name]), own))
    shares: list[list[TensorDigest]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shares, digests)
    certificate = certificate_of(reader.sizes, [digest for share in shares for digest in share])
    logger.info("certificate: %s has the root %s (training.certify is %s)", what, certificate.root, when)
    return certificate


def _reason_against(reader: WeightReader, when: When) -> str | None:
    """Why no certificate is to be made, if so."""
    if when == "never":
        return "training.certify is never"
    shapes = named_shapes(reader.sizes)
    share = sum(prod(shape) * reader.dtype(name).itemsize for name, shape in shapes.items()) / dist.get_world_size()
    if when == "auto" and share > LARGEST_SHARE_BYTES:
        return (
            f"each of {dist.get_world_size()} ranks would read {share / 1e9:.1f} GB, and training.certify auto waits for no more than "
            f"{LARGEST_SHARE_BYTES / 1e9:.1f} GB; set it to always, or use certify_checkpoint"
        )
    return None
