import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_astro.checkpoint import digest as module
from megatron_astro.checkpoint.digest import DataHash, tensor_hash, weights_root
from megatron_astro.records import TensorDigest


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4)


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def tree_from_below(hashes):
    """The same tree the other way round: pair neighbours level by level, an odd one out goes up alone."""
    while len(hashes) > 1:
        pairs = [hashes[i : i + 2] for i in range(0, len(hashes), 2)]
        hashes = [sha(b"\1", *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return hashes[0]


def data_root(content, *ends):
    """The root over a tensor's bytes that arrive cut at `ends`."""
    data = DataHash()
    for begin, end in zip((0, *ends), (*ends, len(content)), strict=True):
        data.update(memoryview(content)[begin:end])
    return data.root()


def tensor(name="a", dtype="F32", shape=(2,), content=b"12345678"):
    return TensorDigest(name=name, dtype=dtype, shape=shape, data=sha(b"\0", content).hex())


@pytest.mark.parametrize("length", range(40))
def test_a_tensor_is_a_tree_of_blocks(length, small_blocks):
    content = bytes(range(length))
    blocks = [content[i : i + 4] for i in range(0, length, 4)] or [b""]
    assert data_root(content) == tree_from_below([sha(b"\0", block) for block in blocks]).hex()


def test_blocks_are_a_mebibyte():
    content = bytes(2**20 + 1)
    assert data_root(content[:-1]) == sha(b"\0", content[:-1]).hex()
    assert data_root(content) == sha(b"\1", sha(b"\0", content[:-1]), sha(b"\0", b"\0")).hex()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_how_a_tensors_bytes_arrive_does_not_matter(small_blocks, content, ends):
    assert data_root(content, *sorted(min(end, len(content)) for end in ends)) == data_root(content)


def test_the_root_is_what_the_format_says():
    """Names are in the order of their bytes: capitals first, then what is beyond ASCII last."""
    tensors = [tensor("é", "F64", (1,)), tensor("a"), tensor("Z", "BF16", (2, 2))]
    leaf = [
        sha(b"\2", b"\1\0\0\0Z", b"\4\0\0\0BF16", b"\2\0\0\0", b"\2" + bytes(7), b"\2" + bytes(7), sha(b"\0", b"12345678")),
        sha(b"\2", b"\1\0\0\0a", b"\3\0\0\0F32", b"\1\0\0\0", b"\2" + bytes(7), sha(b"\0", b"12345678")),
        sha(b"\2", b"\2\0\0\0\xc3\xa9", b"\3\0\0\0F64", b"\1\0\0\0", b"\1" + bytes(7), sha(b"\0", b"12345678")),
    ]
    name = b"megatron_astro weights 1"
    content = struct.pack("<I", len(name)) + name + struct.pack("<Q", 3)
    assert weights_root(tensors) == sha(b"\3", content, tree_from_below(leaf)).hex()


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
tensors = st.builds(
    tensor, name=names, dtype=st.sampled_from(["F64", "F32", "F16", "BF16"]), shape=st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
    content=st.binary(max_size=8),
)  # fmt: skip
models = st.lists(tensors, min_size=1, max_size=6, unique_by=lambda tensor: tensor.name)


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(models, st.data())
def test_the_order_of_tensors_does_not_matter(model, data):
    assert weights_root(data.draw(st.permutations(model))) == weights_root(model)


@settings(deadline=None)
@given(models, st.data())
def test_one_flipped_bit_changes_the_root(model, data):
    number = data.draw(st.integers(0, len(model) - 1))
    content = bytearray.fromhex(model[number].data)
    content[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    changed = [*model[:number], replace(model[number], data=content.hex()), *model[number + 1 :]]
    assert weights_root(changed) != weights_root(model)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_one_flipped_bit_changes_a_tensors_data(content, data):
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", 4)
        assert data_root(content) != data_root(flipped)


@settings(deadline=None)
@given(tensors, tensors)
def test_tensors_that_differ_in_anything_have_other_hashes(one, other):
    assert (tensor_hash(one) == tensor_hash(other)) == (one == other)


@settings(deadline=None)
@given(models, models)
def test_models_that_differ_in_anything_have_other_roots(one, other):
    same = module.in_order(one) == module.in_order(other)
    assert (weights_root(one) == weights_root(other)) == same


def test_kinds_cannot_pass_for_one_another(small_blocks):
    """A block that spells out an inner node is not that node; two tensors' leaves are not a tensor's blocks."""
    halves = [sha(b"\0", b"1234"), sha(b"\0", b"5678")]
    assert data_root(b"12345678") != sha(b"\0", *halves).hex()
    assert data_root(b"12345678") == sha(b"\1", *halves).hex()
    assert weights_root([tensor("a")]) != tensor_hash(tensor("a")).hex()
