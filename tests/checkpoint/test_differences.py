import math
from dataclasses import replace

import pytest

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.differences import Difference, describe_differences, find_differences, measure_differences
from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.reader import read_tensor

NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def reader(gqa):
    return HuggingFaceReader(gqa)


@pytest.fixture(scope="module")
def certificate(reader):
    return certify(reader)


class Changed:
    """A reader with one tensor of another reader changed."""

    def __init__(self, reader, name, change):
        self.path, self.sizes, self.reader, self.name = reader.path, reader.sizes, reader, name
        shape = named_shapes(reader.sizes)[name]
        self.changed = change(read_tensor(reader, name, shape)).reshape(shape[0], -1)

    def dtype(self, name):
        return self.changed.dtype if name == self.name else self.reader.dtype(name)

    def read(self, name, rows, columns, out):
        if name != self.name:
            self.reader.read(name, rows, columns, out)
        else:
            out.copy_(self.changed[slice(*rows), slice(*columns)])


def with_tensor(certificate, old_name, **changes):
    tensors = tuple(replace(tensor, **changes) if tensor.name == old_name else tensor for tensor in certificate.tensors)
    return replace(certificate, tensors=tensors)


def test_the_same_model_differs_in_nothing(certificate):
    assert find_differences(certificate, certificate) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dtype": "BF16"}, "type F32 against BF16"),
        ({"shape": (2, 16)}, "shape [32] against [2, 16]"),
        ({"data": "0" * 64}, "other numbers"),
    ],
)
def test_says_what_differs(certificate, changes, what):
    assert find_differences(certificate, with_tensor(certificate, NORM, **changes)) == [Difference(name=NORM, what=what)]


def test_a_renamed_tensor_is_two_differences(certificate):
    found = find_differences(certificate, with_tensor(certificate, NORM, name="model.other"))
    assert found == [
        Difference(name=NORM, what="only in the first"),
        Difference(name="model.other", what="only in the second"),
    ]


def test_equal_weights_used_differently_are_not_the_same_model(certificate):
    settings = {**certificate.settings, "rope_theta": 5e5, "rope_scaling.factor": 8.0}
    found = find_differences(certificate, replace(certificate, settings=settings))
    assert [str(difference) for difference in found] == [
        "rope_scaling.factor (None against 8.0)",
        "rope_theta (10000.0 against 500000.0)",
    ]


def add_to_last(amount):
    def change(tensor):
        tensor.view(-1)[-1] += amount
        return tensor

    return change


@pytest.mark.parametrize("name", ["model.layers.2.self_attn.k_proj.weight", "lm_head.weight", NORM])
def test_measures_the_largest_difference(reader, certificate, name, monkeypatch):
    monkeypatch.setattr("megatron_astro.checkpoint.differences.BLOCK_BYTES", 1000)
    other = Changed(reader, name, add_to_last(0.75))
    (found,) = measure_differences(find_differences(certificate, certify(other)), reader, other)
    assert found.name == name
    assert found.largest == pytest.approx(0.75, rel=1e-6)  # the sum was rounded to float32
    assert str(found) == f"{name} (other numbers, by up to 0.75)"


def test_measures_across_types_and_sees_nan(reader, certificate):
    rounded = Changed(reader, NORM, lambda tensor: tensor.bfloat16())
    (found,) = measure_differences(find_differences(certificate, certify(rounded)), reader, rounded)
    assert found.what == "type F32 against BF16"
    assert 0 < found.largest < 2 * 2**-8  # values below 2, rounded to 8 bits
    broken = Changed(reader, NORM, add_to_last(math.nan))
    (found,) = measure_differences(find_differences(certificate, certify(broken)), reader, broken)
    assert math.isnan(found.largest)


def test_zeros_of_other_signs_differ_by_nothing(reader):
    positive = Changed(reader, NORM, lambda tensor: tensor * 0)
    negative = Changed(reader, NORM, lambda tensor: -(tensor * 0).abs())
    (found,) = measure_differences(find_differences(certify(positive), certify(negative)), positive, negative)
    assert found.largest == 0.0


def test_what_only_one_side_can_show_is_not_measured(reader, certificate, make_llama):
    wider = HuggingFaceReader(make_llama(hidden_size=64))
    found = [Difference(name="rope_theta", what="1 against 2"), *find_differences(certificate, certify(wider))]
    assert measure_differences(found, reader, wider) == found


def test_a_long_list_is_cut():
    found = [Difference(name=str(number), what="other numbers") for number in range(11)]
    assert describe_differences(found).endswith("7 (other numbers) and 3 more")
