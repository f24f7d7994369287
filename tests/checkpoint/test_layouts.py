import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.checkpoint.layouts import COPY, GATE_UP, QKV, VOCAB
from megatron_astro.model.sizes import LlamaSizes

small = st.integers(1, 4)


@st.composite
def sizes(draw):
    kv_heads = draw(small)
    return LlamaSizes(
        num_layers=1, hidden_size=draw(small), ffn_size=draw(small), num_heads=kv_heads * draw(small), num_kv_heads=kv_heads,
        head_size=2 * draw(small), vocabulary_size=draw(small), max_positions=8, norm_epsilon=1e-5, rope_theta=1e4,
        rope_scaling=None, tied_embeddings=False,
    )  # fmt: skip


def numbered(*shapes):
    """Tensors whose numbers are all different, so that any misplaced one shows."""
    total, tensors = 0, []
    for rows, columns in shapes:
        tensors.append(torch.arange(total, total + rows * columns, dtype=torch.float64).reshape(rows, columns))
        total += rows * columns
    return tuple(tensors)


def qkv(model):
    query, key = model.num_heads * model.head_size, model.num_kv_heads * model.head_size
    return numbered((query, model.hidden_size), (key, model.hidden_size), (key, model.hidden_size))


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@given(sizes())
def test_qkv_splits_into_what_was_joined(model):
    tensors = qkv(model)
    assert_equal(QKV.split(QKV.join(tensors, model), model), tensors)


@given(sizes())
def test_qkv_holds_each_group_of_queries_before_its_key_and_value(model):
    query, key, value = qkv(model)
    d, shared = model.head_size, model.num_heads // model.num_kv_heads
    rows = []
    for group in range(model.num_kv_heads):
        rows += [query[head * d : (head + 1) * d] for head in range(group * shared, (group + 1) * shared)]
        rows += [key[group * d : (group + 1) * d], value[group * d : (group + 1) * d]]
    assert torch.equal(QKV.join((query, key, value), model), torch.cat(rows))


@given(sizes())
def test_gate_up_splits_into_what_was_joined(model):
    tensors = numbered((model.ffn_size, model.hidden_size), (model.ffn_size, model.hidden_size))
    joined = GATE_UP.join(tensors, model)
    assert_equal(GATE_UP.split(joined, model), tensors)
    assert torch.equal(joined[: model.ffn_size], tensors[0])


@given(sizes(), st.integers(0, 5))
def test_vocab_loses_exactly_its_padding(model, padding):
    (embedding,) = numbered((model.vocabulary_size, model.hidden_size))
    joined = VOCAB.join((embedding,), model)
    padded = torch.cat([joined, torch.full((padding, model.hidden_size), -1.0, dtype=torch.float64)])
    assert_equal(VOCAB.split(padded, model), (embedding,))


@given(sizes())
def test_copy_is_the_tensor_itself(model):
    (tensor,) = numbered((model.hidden_size, model.ffn_size))
    assert COPY.split(COPY.join((tensor,), model), model)[0] is tensor
