import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.checkpoint.layouts import COPY, GATE_UP, QKV, VOCAB, Run
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


def joined(layout, tensors, model):
    runs = layout.runs([len(tensor) for tensor in tensors], model)
    return torch.cat([tensors[run.tensor][run.begin : run.end] for run in runs])


@given(sizes())
def test_every_row_is_in_one_run(model):
    for layout, tensors in ((QKV, qkv(model)), (GATE_UP, numbered((model.ffn_size, 1), (model.ffn_size, 1)))):
        rows = [
            (run.tensor, row)
            for run in layout.runs([len(tensor) for tensor in tensors], model)
            for row in range(run.begin, run.end)
        ]
        assert sorted(rows) == [(place, row) for place, tensor in enumerate(tensors) for row in range(len(tensor))]


@given(sizes())
def test_qkv_holds_each_group_of_queries_before_its_key_and_value(model):
    query, key, value = qkv(model)
    d, shared = model.head_size, model.num_heads // model.num_kv_heads
    rows = []
    for group in range(model.num_kv_heads):
        rows += [query[head * d : (head + 1) * d] for head in range(group * shared, (group + 1) * shared)]
        rows += [key[group * d : (group + 1) * d], value[group * d : (group + 1) * d]]
    assert torch.equal(joined(QKV, (query, key, value), model), torch.cat(rows))


@given(sizes())
def test_gate_lies_above_up(model):
    tensors = numbered((model.ffn_size, model.hidden_size), (model.ffn_size, model.hidden_size))
    assert torch.equal(joined(GATE_UP, tensors, model), torch.cat(tensors))


@given(sizes())
def test_one_tensor_is_one_run(model):
    for layout in (COPY, VOCAB):
        assert list(layout.runs([model.hidden_size], model)) == [Run(0, 0, model.hidden_size)]
