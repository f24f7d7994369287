"""The rows and columns a rank holds, against slices of whole tensors cut in the plainest way."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.pieces import covers
from megatron_astro.checkpoint.rank_slices import places, rank_slice, require_divisible_model, stored_tensors
from megatron_astro.checkpoint.torch_contents import PlacedTensor
from megatron_astro.errors import ParallelError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import chunk_layers, padded_vocabulary


@st.composite
def models(draw):
    """A LLaMA and a tp that divides it, but for its vocabulary."""
    tp, kv_share, shared = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kv_heads = tp * kv_share
    sizes = LlamaSizes(
        num_layers=2, hidden_size=draw(st.integers(1, 5)), ffn_size=tp * draw(st.integers(1, 4)), num_heads=kv_heads * shared,
        num_kv_heads=kv_heads, head_size=2 * draw(st.integers(1, 2)), vocabulary_size=draw(st.integers(1, 9)), max_positions=8,
        norm_epsilon=1e-5, rope_theta=1e4, rope_scaling=None, tied_embeddings=False,
    )  # fmt: skip
    return sizes, tp


def numbered(group):
    """Tensors whose numbers are all different, so that any misplaced one shows."""
    total, tensors = 1, []
    for shape in group.shapes:
        tensors.append(torch.arange(total, total + torch.Size(shape).numel()).reshape(shape))
        total += tensors[-1].numel()
    return tensors


def rank_tensor(group, tensors, sizes, tp, rank, rows):
    """What `rank_slice` says, carried out; padding is zeros."""
    own = rank_slice(group, sizes, tp=tp, rank=rank, vocabulary_rows=rows)
    made = torch.zeros(own.shape, dtype=torch.int64)
    for part in own.parts:
        source = tensors[part.tensor][part.rows[0] : part.rows[1]]
        block = source if source.dim() == 1 else source[:, part.columns[0] : part.columns[1]]
        made[part.first_row : part.first_row + len(block)] = block
    return made


@given(models())
def test_each_rank_holds_what_megatron_cuts_out_for_it(model):
    sizes, tp = model
    rows = padded_vocabulary(sizes.vocabulary_size, tp)
    for group in tensor_groups(sizes):
        tensors, name = numbered(group), group.rule.megatron
        for rank in range(tp):
            found = rank_tensor(group, tensors, sizes, tp, rank, rows)
            if name.endswith("linear_qkv.weight"):  # its heads, each key/value head after the query heads that share it
                query, key, value = (tensor.chunk(tp)[rank] for tensor in tensors)
                groups = sizes.num_kv_heads // tp
                cut = zip(query.chunk(groups), key.chunk(groups), value.chunk(groups), strict=True)
                wanted = torch.cat([part for parts in cut for part in parts])
            elif name.endswith("linear_fc1.weight"):  # its rows of gate above its rows of up
                wanted = torch.cat([tensor.chunk(tp)[rank] for tensor in tensors])
            elif name.endswith(("linear_proj.weight", "linear_fc2.weight")):
                wanted = tensors[0].chunk(tp, dim=1)[rank]
            elif name in ("embedding.word_embeddings.weight", "output_layer.weight"):
                padded = torch.cat([tensors[0], torch.zeros(rows - len(tensors[0]), sizes.hidden_size, dtype=torch.int64)])
                wanted = padded.chunk(tp)[rank]
            else:
                wanted = tensors[0]
            assert torch.equal(found, wanted), name


@given(models(), st.integers(0, 3))
def test_the_ranks_together_cover_every_tensor_once(model, padding):
    sizes, tp = model
    rows = padded_vocabulary(sizes.vocabulary_size, tp) + padding * tp
    for group in tensor_groups(sizes):
        ranks = []
        for rank in range(tp):
            shape = rank_slice(group, sizes, tp=tp, rank=rank, vocabulary_rows=rows).shape
            ranks.append((Path(str(rank)), PlacedTensor(torch.float32, shape, (*shape[1:], 1), 0)))
        for name, tensor in stored_tensors(group, sizes, ranks, vocabulary_rows=rows).items():
            assert covers(tensor), name


SIZES = LlamaSizes(
    num_layers=8, hidden_size=4, ffn_size=6, num_heads=4, num_kv_heads=2, head_size=2, vocabulary_size=7, max_positions=8,
    norm_epsilon=1e-5, rope_theta=1e4, rope_scaling=None, tied_embeddings=True,
)  # fmt: skip


def test_places_of_an_interleaved_pipeline():
    found = list(places(tensor_groups(SIZES), chunk_layers((4, 4), 2), tied_embeddings=True))
    ends = [(place.name, place.pp_rank, place.chunk) for place in found if place.layer is None]
    assert ends == [
        ("embedding.word_embeddings.weight", 0, 0),
        ("output_layer.weight", 1, 1),
        ("decoder.final_layernorm.weight", 1, 1),
    ]
    layers = {(place.group.layer, place.pp_rank, place.chunk, place.layer) for place in found if place.layer is not None}
    chunks = {(0, 0): (0, 1), (1, 0): (2, 3), (0, 1): (4, 5), (1, 1): (6, 7)}
    assert layers == {(layer, *where, layer - held[0]) for where, held in chunks.items() for layer in held}


def test_one_stage_keeps_a_tied_embedding_once():
    found = [place for place in places(tensor_groups(SIZES), ((range(8),),), tied_embeddings=True) if place.layer is None]
    assert [place.name for place in found] == ["embedding.word_embeddings.weight", "decoder.final_layernorm.weight"]


@pytest.mark.parametrize(
    ("tp", "words"), [(3, "4 attention heads are not divisible"), (4, "2 key/value heads are not divisible")]
)
def test_heads_that_do_not_divide(tp, words):
    with pytest.raises(ParallelError, match=words):
        require_divisible_model(SIZES, tp)


def test_a_feed_forward_size_that_does_not_divide():
    from dataclasses import replace

    with pytest.raises(ParallelError, match="feed-forward size 7 is not divisible by tp = 2"):
        require_divisible_model(replace(SIZES, ffn_size=7), 2)
