import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_astro.checkpoint.checksums import combined_crc32, crc32_of_zeros


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_parts_make_the_checksum_of_the_whole(parts):
    assert combined_crc32((zlib.crc32(part), len(part)) for part in parts) == zlib.crc32(b"".join(parts))


@settings(deadline=None)
@given(st.integers(0, 100_000))
def test_zeros(num_bytes):
    assert crc32_of_zeros(num_bytes) == zlib.crc32(bytes(num_bytes))


def test_large_parts():
    one, other = bytes(range(256)) * 40_000, b"\1" * 9_999_999
    assert combined_crc32([(zlib.crc32(one), len(one)), (zlib.crc32(other), len(other))]) == zlib.crc32(one + other)
