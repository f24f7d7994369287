import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.config.run import ParallelConfig
from megatron_astro.errors import ParallelError
from megatron_astro.parallel.plan import chunk_layers, make_plan, padded_vocabulary, split_layers

LLAMA_70B = {"num_layers": 80, "num_heads": 64, "num_kv_heads": 8}


def test_what_is_left_of_the_world_is_data_parallel():
    plan = make_plan(ParallelConfig(tp=8, pp=4), 128, **LLAMA_70B)
    assert (plan.dp, plan.layers_per_stage) == (4, (20,) * 4)
    assert plan.num_microbatches(160, 2) == 20


@given(num_layers=st.integers(1, 100), pp=st.integers(1, 10), first=st.integers(0, 30))
def test_layers_are_all_shared_out_or_refused(num_layers, pp, first):
    try:
        split = split_layers(num_layers, pp, first)
    except ParallelError:
        return
    assert len(split) == pp
    assert sum(split) == num_layers
    assert min(split) >= 1
    assert len(set(split[1:])) <= 1


@given(pp=st.integers(2, 6), vpp=st.integers(1, 4), each=st.integers(1, 4), more=st.integers(0, 3))
def test_a_token_meets_the_layers_in_order(pp, vpp, each, more):
    """It passes chunk 0 of every stage, then chunk 1 of every stage; the first stage may hold more layers."""
    layers_per_stage = (vpp * (each + more), *(vpp * each,) * (pp - 1))
    chunks = chunk_layers(layers_per_stage, vpp)
    passed = [layer for chunk in range(vpp) for stage in range(pp) for layer in chunks[stage][chunk]]
    assert passed == list(range(sum(layers_per_stage)))
    assert tuple(sum(map(len, stage)) for stage in chunks) == layers_per_stage


def test_chunks_are_those_of_megatron_cores_own_example():
    """`get_num_layers_to_build`: 8 layers, 2 stages, 2 virtual stages give [0, 1] [4, 5] and [2, 3] [6, 7]."""
    assert chunk_layers((4, 4), 2) == ((range(2), range(4, 6)), (range(2, 4), range(6, 8)))


@pytest.mark.parametrize(
    ("pp", "vpp", "text"),
    [(4, 3, "a pipeline stage of 20 layers cannot be cut into vpp = 3 chunks"), (1, 2, "vpp = 2 needs more than one")],
)
def test_refuses_chunks_that_do_not_divide(pp, vpp, text):
    with pytest.raises(ParallelError) as caught:
        make_plan(ParallelConfig(pp=pp, vpp=vpp), pp, **LLAMA_70B)
    assert text in str(caught.value)


@given(vocabulary=st.integers(1, 1000), tp=st.integers(1, 64))
def test_a_padded_vocabulary_is_the_next_multiple(vocabulary, tp):
    rows = padded_vocabulary(vocabulary, tp)
    assert rows % tp == 0
    assert vocabulary <= rows < vocabulary + tp


@pytest.mark.parametrize(
    ("config", "world", "text"),
    [
        (ParallelConfig(tp=16), 16, "8 key/value heads are not divisible by parallel.tp = 16"),
        (
            ParallelConfig(tp=3),
            3,
            "64 attention heads are not divisible by parallel.tp = 3; choose a tp that divides 64: 1, 2, 4, 8",
        ),
        (ParallelConfig(tp=8, pp=4), 100, "100 ranks cannot be split into parallel.tp x parallel.pp = 8 x 4"),
        (ParallelConfig(pp=3), 3, "80 layers are not divisible by parallel.pp = 3"),
        (ParallelConfig(pp=3, first_stage_layers=27), 3, "leaves 53 of 80 layers for the other 2 pipeline stages"),
        (ParallelConfig(first_stage_layers=5), 1, "parallel.first_stage_layers = 5"),
        (ParallelConfig(sequence_parallel=True), 1, "parallel.sequence_parallel is true but parallel.tp is 1"),
    ],
)
def test_refuses_what_does_not_divide(config, world, text):
    with pytest.raises(ParallelError) as caught:
        make_plan(config, world, **LLAMA_70B)
    assert text in str(caught.value)


def test_interleaved_stages_want_groups_of_as_many_micro_batches():
    plan = make_plan(ParallelConfig(pp=4, vpp=5), 8, **LLAMA_70B)
    assert plan.num_microbatches(16, 1) == 8
    with pytest.raises(ParallelError, match=r"each data-parallel rank 6 micro-batches, .* make it a multiple of 8"):
        plan.num_microbatches(12, 1)
    assert make_plan(ParallelConfig(pp=4), 8, **LLAMA_70B).num_microbatches(12, 1) == 6


def test_refuses_a_batch_that_does_not_divide():
    plan = make_plan(ParallelConfig(), 4, **LLAMA_70B)
    with pytest.raises(ParallelError, match=r"global_batch_size 10 .* make it a multiple of 8"):
        plan.num_microbatches(10, 2)
