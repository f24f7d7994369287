"""Reading back what a conversion writes, block by block, while it is still in the processor's cache.

Each block is read from the file right after it was written there, and compared, bit for bit, with the block that was read of the source
and hashed; it is hashed itself where that one was rounded or computed. It comes from the system's cache of the file: that proves what was
written, not that the disk will keep it. What was read back leaves that cache, so that a conversion uses the same memory again and again.
Nothing comes over it
later: no byte of a file is written twice (`transfer.OpenFile`), and the files' own headers must have each tensor where it was read back
(`writing.certify_conversion`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from megatron_astro.checkpoint.digest import DataHash
from megatron_astro.checkpoint.pieces import Piece, Span, StoredTensor, num_columns, same_bytes, tensor_bytes
from megatron_astro.checkpoint.reader import StoredReader, blocks, in_buffer
from megatron_astro.checkpoint.shards import FileLayout

Forget = Callable[[StoredTensor, bool], None]  # gives back the memory of a tensor's files; whether it was just written


class PlacedTensors(StoredReader):
    """Tensors of an unfinished folder, where they are written to."""

    def __init__(self, folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
        self.path = folder
        self.tensors = dict(tensors)


class ShardReadBack:
    """Reads back a shard's tensors while they are written; `data` has the roots (`digest.py`) over their bytes."""

    def __init__(
        self,
        folder: Path,
        layouts: Sequence[FileLayout],
        dtypes: Mapping[str, torch.dtype],
        shapes: Mapping[str, tuple[int, ...]],
        source: StoredReader | None,
        forget: Forget | None = None,
    ) -> None:
        self.source, self.forget = source, forget
        self.data: dict[str, str] = {}
        placed: dict[str, list[Piece]] = {}
        for layout in layouts:
            for name, pieces in layout.pieces.items():
                placed.setdefault(name, []).extend(replace(piece, file=folder / piece.file) for piece in pieces)
        copies = {name: list(_copies(pieces, dtypes[name], shapes[name])) for name, pieces in placed.items()}
        self.tensors = {name: first for name, (first, *_) in copies.items()}
        depth = max(map(len, copies.values()), default=0)
        self.copies = [
            PlacedTensors(folder, {name: own[number] for name, own in copies.items() if number < len(own)})
            for number in range(depth)
        ]

    def of(self, name: str) -> "TensorReadBack":
        """For one tensor."""
        return TensorReadBack(self, name)


class TensorReadBack:
    """One tensor, read back in blocks of rows, in order; ranks that hold the same each have a copy."""

    def __init__(self, shard: ShardReadBack, name: str) -> None:
        self._shard = shard
        self._name = name
        self._tensor = shard.tensors[name]
        self._copies = [copy for copy in shard.copies if name in copy.tensors]
        self._source = shard.source if shard.source and shard.source.dtype(name) == self._tensor.dtype else None
        self._hashes = [DataHash() for _ in self._copies]
        self._is_same = True

    def check(self, rows: Span, block: Tensor, buffer: Tensor) -> None:
        """Read back rows that were just written of the source's `block`, into the buffer."""
        columns = num_columns(self._tensor.shape)
        written = in_buffer(buffer, self._tensor.dtype, rows, columns)
        for copy, data in zip(self._copies, self._hashes, strict=True):
            copy.read_again(self._name, rows, (0, columns), written)
            if self._source:
                self._is_same = self._is_same and same_bytes(written, block)
            else:
                data.update(tensor_bytes(written))

    def finish(self, source_data: str, expected: str) -> None:
        """Keep the root: the source's, where all read back is the same bit for bit; else of the first copy that is not as `expected`."""
        if self._source is None:
            found = [data.root() for data in self._hashes]
        else:
            found = [source_data] if self._is_same else [self._data_root(copy) for copy in self._copies]
        wrong = [data for data in found if data != expected]
        self._shard.data[self._name] = (wrong or found)[0]
        if self._shard.forget:
            for copy in self._copies:
                self._shard.forget(copy.tensors[self._name], True)
            if self._source:
                self._shard.forget(self._source.tensors[self._name], False)

    def _data_root(self, copy: StoredReader) -> str:
        data = DataHash()
        for _, block in blocks(copy, self._name, self._tensor.shape):
            data.update(tensor_bytes(block))
        return data.root()


def _copies(pieces: Sequence[Piece], dtype: torch.dtype, shape: tuple[int, ...]) -> Iterator[StoredTensor]:
    """Pieces that cover the tensor, again and again where several ranks have it."""
    own: list[Piece] = []
    for piece in pieces:
        own.append(piece)
        if sum(part.num_numbers for part in own) == prod(shape):
            yield StoredTensor(dtype, shape, tuple(own))
            own = []
