"""CRC-32 of bytes that lie behind one another, from the CRC-32 of each part: parts can be summed apart, in any order, by any thread.

CRC-32 is the remainder of the bits, read as a polynomial over the numbers 0 and 1, modulo a fixed one of degree 32. To put n bytes behind
others multiplies those by x^(8 n) and adds, so the remainders combine in the same way. Polynomials are stored as CRC-32 does: the highest
bit is the constant, the lowest that of x^31.
"""

from collections.abc import Iterable
from functools import lru_cache

REMAINDER_OF_X32 = 0xEDB88320
ONE = 0x80000000


def combined_crc32(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-32 of all parts, each given by its CRC-32 and its number of bytes."""
    total = 0
    for crc32, num_bytes in parts:
        total = _product(_power(num_bytes), total) ^ crc32
    return total


def crc32_of_zeros(num_bytes: int) -> int:
    """The CRC-32 of zero bytes; it begins and ends with all bits flipped, which is all there is of zeros."""
    return _product(_power(num_bytes), 0xFFFFFFFF) ^ 0xFFFFFFFF


@lru_cache(maxsize=1024)
def _power(num_bytes: int) -> int:
    """The remainder of x^(8 n), by squaring."""
    result, square, exponent = ONE, ONE >> 1, 8 * num_bytes
    while exponent:
        if exponent & 1:
            result = _product(result, square)
        square = _product(square, square)
        exponent >>= 1
    return result


def _product(one: int, other: int) -> int:
    """The remainder of a product."""
    total = 0
    while one:
        if one & ONE:
            total ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (REMAINDER_OF_X32 if other & 1 else 0)
    return total
