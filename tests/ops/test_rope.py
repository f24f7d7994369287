from functools import partial

import pytest
import torch
from torch.library import opcheck
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from megatron_astro.ops.rope import rope_fused, rope_reference

DTYPES = [torch.float32, torch.bfloat16]
raw = torch.ops.megatron_astro


def frequencies(head_size, theta=10000.0):
    return 1 / theta ** (torch.arange(0, head_size, 2).float() / head_size)


def truth(query, key, inverse_frequencies, cu_seqlens=None, position_offset=0):
    """The rotation as a product of complex numbers, a token at a time; the angle is rounded to float32 as everywhere."""
    starts = [0] if cu_seqlens is None else cu_seqlens.tolist()
    turned = []
    for tensor in (query, key):
        half = tensor.shape[-1] // 2
        tokens = []
        for token in range(tensor.shape[0]):
            position = token - max(start for start in starts if start <= token) + position_offset
            angle = (inverse_frequencies * position).double()
            value = torch.complex(tensor[token, ..., :half], tensor[token, ..., half:]) * torch.polar(
                torch.ones_like(angle), angle
            )
            tokens.append(torch.cat([value.real, value.imag], dim=-1))
        turned.append(torch.stack(tokens))
    return tuple(turned)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(5, 1, 3, 1, 8), (9, 2, 4, 2, 64), (3, 1, 2, 2, 34), (40, 1, 6, 3, 128)])
@pytest.mark.parametrize("packed", [None, (0, 2, 3), (0, 0, 1, 3)])
@pytest.mark.parametrize("position_offset", [0, 131_000])
def test_error_is_at_most_twice_pytorchs(instruction_set, sizes, dtype, packed, position_offset, random, compare):
    torch.manual_seed(0)
    tokens, batch, heads, groups, head_size = sizes
    cu_seqlens = None if packed is None else torch.tensor([*packed[:-1], tokens], dtype=torch.int32)
    options = {"inverse_frequencies": frequencies(head_size), "cu_seqlens": cu_seqlens, "position_offset": position_offset}
    functions = (partial(function, **options) for function in (rope_fused, rope_reference, truth))
    shapes = (tokens, batch, heads, head_size), (tokens, batch, groups, head_size)
    compare(*functions, random(dtype, *shapes), random(dtype, *shapes))


@pytest.mark.parametrize("scaling", [None, {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}])
def test_equals_transformers(scaling, random):
    rope = (
        {"rope_type": "default"}
        if scaling is None
        else {"rope_type": "llama3", "original_max_position_embeddings": 16, **scaling}
    )
    config = LlamaConfig(rope_parameters={**rope, "rope_theta": 5e5}, hidden_size=256, num_attention_heads=4)
    embedding = LlamaRotaryEmbedding(config)
    query, key = random(torch.float32, (33, 2, 4, 64), (33, 2, 2, 64))
    cosine, sine = embedding(query, torch.arange(33)[None])
    theirs = apply_rotary_pos_emb(*(tensor.permute(1, 2, 0, 3) for tensor in (query, key)), cosine, sine)
    ours = rope_fused(query, key, embedding.inv_freq)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other.permute(2, 0, 1, 3), rtol=0, atol=2e-6)  # a few units of float32 at values up to 5


def test_in_place_through_views_of_one_tensor(instruction_set, random):
    """As attention has them: query and key are slices of one tensor, whose other parts stay as they are."""
    (mixed,) = random(torch.float32, (7, 2, 3, 5, 16))
    expected = mixed.clone()
    query, key = expected[..., :3, :].flatten(2, 3), expected[..., 3, :]
    expected_query, expected_key = rope_reference(query, key, frequencies(16))
    turned_query, turned_key = rope_fused(mixed[..., :3, :].flatten(2, 3), mixed[..., 3, :], frequencies(16))
    torch.testing.assert_close(turned_query, expected_query)
    torch.testing.assert_close(turned_key, expected_key)
    assert turned_key.data_ptr() == mixed[..., 3, :].data_ptr()
    assert torch.equal(mixed[..., 4, :], expected[..., 4, :])


def test_a_step_that_kept_its_result_finds_out_that_it_changed(random):
    query, key = (tensor.requires_grad_() for tensor in random(torch.float32, (2, 1, 1, 8), (2, 1, 1, 8)))
    turned, _ = rope_fused(query.exp(), key.exp(), frequencies(8))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        turned.sum().backward()


def test_nothing_to_do():
    query, key = rope_fused(torch.empty(0, 1, 4, 8), torch.empty(0, 1, 2, 8), frequencies(8))
    assert (query.shape, key.shape) == ((0, 1, 4, 8), (0, 1, 2, 8))


HEADS = torch.ones(4, 1, 2, 8)
REFUSED = [
    ("three axes", (torch.ones(4, 2, 8), HEADS, frequencies(8), None), "query must be"),
    ("odd head", (HEADS[..., :7], HEADS[..., :7], frequencies(8), None), "must be even"),
    ("strided head", (HEADS.transpose(2, 3), HEADS.transpose(2, 3), frequencies(2), None), "last axis is not contiguous"),
    ("other length", (HEADS, HEADS[:3], frequencies(8), None), "key must have query's"),
    ("frequencies", (HEADS, HEADS, frequencies(16), None), "half the head size"),
    ("int64 starts", (HEADS, HEADS, frequencies(8), torch.tensor([0, 4])), "cu_seqlens must be int32"),
    ("float64", (HEADS.double(), HEADS.double(), frequencies(8), None), "float32 or bfloat16"),
]


@pytest.mark.parametrize(("arguments", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_raw_operation_refuses(arguments, text):
    with pytest.raises(RuntimeError, match=text):
        raw.rope(*arguments, 0, False)


SHARED = [
    ("heads that share memory", HEADS, HEADS[:, :, :1].expand(4, 1, 2, 8), "key repeats its memory along axis 2"),
    (
        "samples that do",
        torch.ones(4, 1, 2, 8).expand(4, 3, 2, 8),
        torch.ones(4, 3, 2, 8),
        "query repeats its memory along axis 1",
    ),
    ("query is key", HEADS, HEADS, "query and key are the same memory"),
]


@pytest.mark.parametrize(("query", "key", "text"), [case[1:] for case in SHARED], ids=[case[0] for case in SHARED])
def test_what_would_be_turned_twice_in_place_is_refused(query, key, text):
    with pytest.raises(RuntimeError, match=text):
        rope_fused(query, key, frequencies(8))


@pytest.mark.parametrize("packed", [False, True])
def test_torch_knows_the_operations(packed, device, random):
    cu_seqlens = torch.tensor([0, 2, 4], dtype=torch.int32) if packed else None
    query, key = random(torch.bfloat16, (4, 1, 2, 8), (4, 1, 1, 8))
    for operation in (raw.rope_, raw.rope):
        opcheck(operation.default, (query, key, frequencies(8), cu_seqlens, 3, False))


def test_there_is_no_second_derivative(no_second_derivative):
    no_second_derivative(lambda query: rope_fused(query, query * 2, frequencies(8))[0], 3, 1, 2, 8)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function:DeprecationWarning")  # torch.compile to itself
def test_compiles_as_one_graph(random, same_when_compiled):
    def score(query, key):
        query, key = rope_fused(query * 2, key * 3, frequencies(8))
        return (query * key).square().sum()

    same_when_compiled(score, random(torch.float32, (4, 1, 2, 8), (4, 1, 2, 8)))


@pytest.mark.gpu
def test_a_cuda_graph_replays_it(gradients_in_a_cuda_graph):
    inverse_frequencies = frequencies(128).cuda()
    gradients_in_a_cuda_graph(lambda query, key: rope_fused(query, key, inverse_frequencies)[0], (65, 2, 8, 128), (65, 2, 2, 128))
