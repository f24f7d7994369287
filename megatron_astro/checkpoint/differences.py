"""Where two checkpoints differ: tensor by tensor from their certificates, and by how much where both can be read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from megatron_astro.checkpoint.names import Group, tensor_groups
from megatron_astro.checkpoint.reader import WeightReader
from megatron_astro.records import CertificateRecord, TensorDigest

DIFFERENCES_SHOWN = 8
CHUNK_NUMBERS = 1 << 22  # compared at a time, in float64


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
    ours, theirs = _places(one), _places(other)
    return [
        replace(difference, largest=_largest(_read(one, ours[difference.name]), _read(other, theirs[difference.name])))
        if difference.name in ours.keys() & theirs.keys()
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


def _places(reader: WeightReader) -> dict[str, tuple[Group, int]]:
    """By name, the group a tensor is read with, and its place there."""
    groups = tensor_groups(reader.sizes)
    return {name: (group, index) for group in groups for index, name in enumerate(group.names)}


def _read(reader: WeightReader, place: tuple[Group, int]) -> Tensor:
    group, index = place
    return reader.read(group)[index]


def _largest(one: Tensor, other: Tensor) -> float | None:
    """Largest absolute difference of two tensors of one shape (NaN if either holds one); None for two shapes. [...], [...] -> ()."""
    if one.shape != other.shape:
        return None
    chunks = zip(*(torch.split(tensor.reshape(-1), CHUNK_NUMBERS) for tensor in (one, other)), strict=True)
    largest = [(ours.double() - theirs.double()).abs().max() for ours, theirs in chunks]
    return float(torch.stack(largest).max())
