"""Documents packed into one row give what each gives alone. Layouts with several ranks are in tests/training."""

import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy

with warnings.catch_warnings():  # what torch and megatron-core say about themselves when first imported is not ours to mend
    warnings.simplefilter("ignore")
    from megatron.core.tensor_parallel import random as megatron_random  # noqa: F401

from megatron_astro.config.run import ParallelConfig
from megatron_astro.model.build import build_stage
from megatron_astro.model.layers import hide_padding, packed_documents
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.launch import single_process
from megatron_astro.parallel.plan import make_plan

LENGTHS = [5, 1, 12, 7, 2, 1]
HIDDEN, LAYERS, FFN = 48, 2, 96
SIZES = LlamaSizes.from_hf_config(
    {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
    }
)  # fmt: skip
# The same float32 sums over at most FFN terms, in another blocking: sqrt(n) units in the last place of values of order 1, in each layer.
TOLERANCE = FFN**0.5 * LAYERS * 2**-23


@pytest.fixture(scope="module", params=["none", "full"])
def model(request):
    with single_process():
        torch.manual_seed(0)
        plan = make_plan(ParallelConfig(), 1, num_layers=LAYERS, num_heads=6, num_kv_heads=2)
        model = build_stage(SIZES, plan, recompute=request.param)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=HIDDEN**-0.5)  # logits of order 1
        yield model


def logits_and_gradient(model, documents, packed):
    """Logits [t, v] and the gradient, over all parameters, of a weighted sum of them."""
    model.zero_grad()
    rows = [torch.cat(documents)] if packed else documents
    cu_seqlens = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    options = {"packed_seq_params": packed_documents(cu_seqlens, max(LENGTHS))} if packed else {}
    logits = torch.cat([model(row.unsqueeze(0), torch.arange(len(row)).unsqueeze(0), None, **options)[0] for row in rows])
    weights = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    (logits * weights).sum().backward()
    return logits.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_packed_documents_are_what_each_is_alone(model):
    documents = list(torch.randint(0, 64, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1)).split(LENGTHS))
    alone, packed = (logits_and_gradient(model, documents, packed) for packed in (False, True))
    assert (packed[0] - alone[0]).abs().max() <= TOLERANCE * alone[0].abs().max()
    # The gradient sums once more over the tokens.
    assert (packed[1] - alone[1]).norm() <= TOLERANCE * sum(LENGTHS) ** 0.5 * alone[1].norm()


def test_without_packing_documents_do_see_each_other(model):
    documents = list(torch.randint(0, 64, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1)).split(LENGTHS))
    alone, _ = logits_and_gradient(model, documents, packed=False)
    row = torch.cat(documents)
    joined = model(row.unsqueeze(0), torch.arange(len(row)).unsqueeze(0), None)[0]
    assert (joined[: LENGTHS[0]] - alone[: LENGTHS[0]]).abs().max() <= TOLERANCE * alone.abs().max()
    assert (joined[LENGTHS[0] :] - alone[LENGTHS[0] :]).abs().max() > 0.1


def test_no_mask_of_all_pairs_is_made(model, monkeypatch):
    """Attention is asked for one document at a time, with no mask."""
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, **options):
        seen.append((query.shape[2], options.get("attn_mask")))
        return attend(query, key, value, **options)

    monkeypatch.setattr("megatron_astro.model.layers.F.scaled_dot_product_attention", watched)
    documents = list(torch.arange(sum(LENGTHS)).split(LENGTHS))
    with torch.no_grad():
        cu_seqlens = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
        row = torch.cat(documents).unsqueeze(0)
        model(row, row, None, packed_seq_params=packed_documents(cu_seqlens, max(LENGTHS)))
    assert seen == [(length, None) for length in LENGTHS] * LAYERS


VOCABULARY, ROWS, WIDTH = 5, 8, 3


class Output(torch.nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(rows * WIDTH, dtype=torch.float64).reshape(rows, WIDTH).sin())

    def forward(self, hidden):
        return hidden @ self.weight.T, None


def test_padding_changes_neither_loss_nor_gradient():
    plain, padded = Output(VOCABULARY), Output(ROWS)
    padded.register_forward_hook(hide_padding(VOCABULARY))
    hidden, targets = torch.linspace(-1, 1, 4 * WIDTH, dtype=torch.float64).reshape(4, WIDTH), torch.tensor([0, 4, 2, 1])
    losses = [cross_entropy(output(hidden)[0], targets) for output in (plain, padded)]
    for loss in losses:
        loss.backward()
    # sums of up to 8 products of numbers below 1, in float64
    assert (losses[0] - losses[1]).abs() < 8 * 2.0**-52
    assert (padded.weight.grad[:VOCABULARY] - plain.weight.grad).abs().max() < 8 * 2.0**-52
    assert not padded.weight.grad[VOCABULARY:].any()


@pytest.mark.parametrize(("num_tokens", "hidden_columns"), [(9, 0), (8, 0), (3, 5), (0, 8), (-2, 8)])
def test_a_rank_may_hold_some_padding_or_nothing_else(num_tokens, hidden_columns):
    logits, _ = hide_padding(num_tokens)(None, None, (torch.zeros(2, 1, ROWS), None))
    assert int(logits.isneginf().sum()) == 2 * hidden_columns
