import os
import zlib

import torch

from megatron_astro.checkpoint.torch_archive import PickledTensor, lay_out_archive
from megatron_astro.checkpoint.torch_contents import PlacedTensor, read_contents


def write(path, layout, contents, offset=0):
    """Fill a laid out archive; `contents` are the tensors' bytes by key."""
    with path.open("wb") as stream:
        os.ftruncate(stream.fileno(), offset + layout.num_bytes)
        for position, content in layout.literals:
            os.pwrite(stream.fileno(), content, position)
        for key, content in contents.items():
            os.pwrite(stream.fileno(), content, layout.begins[key])
        for checksum, content in zip(layout.checksums, contents.values(), strict=True):
            assert checksum.end - checksum.begin == len(content)
            for place in checksum.places:
                os.pwrite(stream.fileno(), zlib.crc32(content).to_bytes(4, "little"), place)


def test_torch_loads_what_was_laid_out(tmp_path):
    tensors = {"0": torch.arange(6, dtype=torch.float32).reshape(2, 3), "1": torch.tensor([1.5, 2.5], dtype=torch.bfloat16)}
    pickled = {key: PickledTensor(key, tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}
    layout = lay_out_archive({"model": pickled, "step": 5}, pickled.values())
    assert all(begin % 64 == 0 for begin in layout.begins.values())
    contents = {key: tensor.view(torch.uint8).numpy().tobytes() for key, tensor in tensors.items()}
    write(tmp_path / "file", layout, contents)
    found = torch.load(tmp_path / "file", weights_only=True)
    assert found["step"] == 5
    assert all(torch.equal(found["model"][key], tensor) for key, tensor in tensors.items())


def test_records_and_offsets_beyond_4_gib(tmp_path):
    """A sparse file: the first storage is 5 GiB of zeros that are never there, the second begins behind it."""
    large, small = PickledTensor("0", torch.uint8, (5 * 2**30,)), PickledTensor("1", torch.float32, (2,))
    layout = lay_out_archive([large, small], [large, small])
    with (tmp_path / "file").open("wb") as stream:
        os.ftruncate(stream.fileno(), layout.num_bytes)
        for position, content in layout.literals:
            os.pwrite(stream.fileno(), content, position)
        os.pwrite(stream.fileno(), torch.tensor([3.0, 4.0]).numpy().tobytes(), layout.begins["1"])
    assert read_contents(tmp_path / "file") == [
        PlacedTensor(torch.uint8, (5 * 2**30,), (1,), layout.begins["0"]),
        PlacedTensor(torch.float32, (2,), (1,), layout.begins["1"]),
    ]
    found = torch.load(tmp_path / "file", weights_only=True, mmap=True)
    assert found[0].numel() == 5 * 2**30
    assert found[1].tolist() == [3.0, 4.0]
