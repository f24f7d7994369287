"""Where two checkpoints differ: tensor by tensor from their certificates, and by how much where both can be read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.pieces import num_columns, row_blocks
from megatron_astro.checkpoint.reader import BLOCK_BYTES, WeightReader
from megatron_astro.records import CertificateRecord, TensorDigest

DIFFERENCES_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor, or a setting of the model, that two checkpoints do not share; `largest` is the largest absolute difference if measured."""

    name: str
    what: str
    largest: float | None = None

    def __str__(self) -> str:
        measured = "" if self.largest is None else f", by up to {self.largest:.3g}"
        return f"{self.name} ({self.what}{measured})"


def find_differences(one: CertificateRecord, other: CertificateRecord) -> list[Difference]:
    """Every tensor and setting in which two certificates differ; empty where they certify the same model."""
    ours, theirs = ({tensor.name: tensor for tensor in certificate.tensors} for certificate in (one, other))
    found = [
        Difference(name=name, what=what)
        for name in sorted(ours.keys() | theirs.keys())
        if (what := _what_differs(ours.get(name), theirs.get(name)))
    ]
    found += [
        Difference(name=name, what=f"{one.settings.get(name)} against {other.settings.get(name)}")
        for name in sorted(one.settings.keys() | other.settings.keys())
        if one.settings.get(name) != other.settings.get(name)
    ]
    return found


def measure_differences(found: Sequence[Difference], one: WeightReader, other: WeightReader) -> list[Difference]:
    """The same differences with the largest absolute difference of every tensor that both sides hold in one shape."""
    ours, theirs = named_shapes(one.sizes), named_shapes(other.sizes)
    return [
        replace(difference, largest=_largest(one, other, difference.name, ours[difference.name]))
        if difference.name in ours and ours[difference.name] == theirs.get(difference.name)
        else difference
        for difference in found
    ]


def describe_differences(found: Sequence[Difference]) -> str:
    """The first differences in words, and how many more there are."""
    more = f" and {len(found) - DIFFERENCES_SHOWN} more" if len(found) > DIFFERENCES_SHOWN else ""
    return ", ".join(map(str, found[:DIFFERENCES_SHOWN])) + more


def _what_differs(one: TensorDigest | None, other: TensorDigest | None) -> str:
    """In words; empty when nothing does."""
    if one is None or other is None:
        return "only in the second" if one is None else "only in the first"
    for what, ours, theirs in (("shape", list(one.shape), list(other.shape)), ("type", one.dtype, other.dtype)):
        if ours != theirs:
            return f"{what} {ours} against {theirs}"
    return "" if one.data == other.data else "other numbers"


def _largest(one: WeightReader, other: WeightReader, name: str, shape: tuple[int, ...]) -> float:
    """Largest absolute difference of a tensor, block after block in float64 (NaN if either holds one)."""
    columns = (0, num_columns(shape))
    largest = torch.zeros((), dtype=torch.float64)
    for rows in row_blocks(shape, columns[1] * torch.float64.itemsize, BLOCK_BYTES):
        ours, theirs = (torch.empty((rows[1] - rows[0], columns[1]), dtype=reader.dtype(name)) for reader in (one, other))
        one.read(name, rows, columns, ours)
        other.read(name, rows, columns, theirs)
        largest = torch.maximum(largest, (ours.double() - theirs.double()).abs().max())
    return float(largest)
