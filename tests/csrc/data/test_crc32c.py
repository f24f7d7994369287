import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro._data import crc32c_blocks, crc32c_implementations

POLYNOMIAL = 0x82F63B78
VECTORS = [  # RFC 3720, appendix B.4, and the check value of the CRC catalogues
    (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
]  # fmt: skip


def reference(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("implementation", crc32c_implementations())
@pytest.mark.parametrize(("content", "crc"), VECTORS)
def test_known_vectors(implementation, content, crc):
    assert crc32c_blocks(np.frombuffer(content, np.uint8), 64, implementation).tolist() == [crc] == [reference(content)]


@pytest.mark.parametrize("implementation", crc32c_implementations())
@given(content=st.binary(max_size=300), block_size=st.sampled_from([8, 16, 40, 64, 1024]), offset=st.integers(0, 7))
def test_every_block_is_the_references(implementation, content, block_size, offset):
    """At any alignment, and with any number of whole blocks: three at a time, and what is left."""
    view = np.frombuffer(bytes(offset) + content, np.uint8)[offset:]
    blocks = [content[start : start + block_size] for start in range(0, len(content), block_size)]
    assert crc32c_blocks(view, block_size, implementation).tolist() == [reference(block) for block in blocks]


def test_bad_arguments_raise():
    content = np.zeros(8, np.uint8)
    for size in (0, -8, 12):
        with pytest.raises(ValueError, match=f"block_size is {size}"):
            crc32c_blocks(content, size)
    with pytest.raises(ValueError, match="no CRC-32C by magic"):
        crc32c_blocks(content, 8, "magic")
    with pytest.raises(TypeError):
        crc32c_blocks(np.zeros(8, np.int8), 8)
