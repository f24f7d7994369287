"""Scores against the plainest reference: one forward pass for each continuation, all logits, in float64.

Tolerance: DESIGN's rule for numerics. The error against float64 may be at most twice that of the same plain computation in float32;
compared as root mean squares over all scores, which, unlike the largest error, do not hang on one unlucky rounding.
"""

import copy
import math

import pytest
import torch

from megatron_astro.errors import CheckpointError, DataError
from megatron_astro.evaluation.likelihood import LEAST_SHARED_TOKENS, lay_out, score_trees
from megatron_astro.evaluation.model import LoadedModel
from megatron_astro.evaluation.tokenisation import TokenTree


def random_tokens(generator, count, vocabulary_size):
    return tuple(torch.randint(vocabulary_size, (count,), generator=generator).tolist())


def random_trees(vocabulary_size, shared):
    """Trees of all shapes: single tokens, long and short branches, a branch that starts with tokens that are not scored."""
    generator = torch.Generator().manual_seed(3)
    beginning = random_tokens(generator, shared, vocabulary_size)
    shapes = [(9, (3, 1, 5, 2)), (1, (4, 4)), (17, (1, 1, 1, 1, 1)), (3, (30,)), (12, (2, 7)), (5, (1, 6, 1, 1)), (8, (1,))]
    trees = []
    for number, (stem, branches) in enumerate(shapes):
        trees.append(
            TokenTree(
                name=f"tree {number}",
                stem=beginning + random_tokens(generator, stem, vocabulary_size),
                branches=tuple(random_tokens(generator, branch, vocabulary_size) for branch in branches),
                first_scored=tuple(1 if branch == 7 else 0 for branch in branches),
            )
        )
    return trees


def naive_scores(model, tree, dtype):
    """Log-probabilities of every branch's scored tokens, a forward pass of the whole text each."""
    scores = []
    for branch, first in zip(tree.branches, tree.first_scored, strict=True):
        ids = torch.tensor([tree.stem + branch])
        log_softmax = model.to(dtype)(ids, use_cache=False).logits.log_softmax(-1)[0]
        positions = range(len(tree.stem) + first - 1, len(tree.stem) + len(branch) - 1)
        scores.append(tuple(log_softmax[position, ids[0, position + 1]].item() for position in positions))
    return tuple(scores)


def flat(scores):
    return [value for tree in scores for branch in tree for value in branch]


def root_mean_square_error(found, truth):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(flat(found), flat(truth), strict=True)) / len(flat(truth)))


@pytest.fixture(scope="module")
def reference(model_folder):
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(model_folder, attn_implementation="eager").eval()


@pytest.mark.parametrize("shared", [0, LEAST_SHARED_TOKENS, 90])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_are_those_of_one_forward_a_branch(loaded, reference, shared, batch_size):
    trees = random_trees(loaded.output_weight.shape[0], shared)
    found = score_trees(loaded, trees, batch_size=batch_size, title="t", unit="trees")
    with torch.inference_mode():
        truth = [naive_scores(copy.deepcopy(reference), tree, torch.float64) for tree in trees]
        naive = [naive_scores(copy.deepcopy(reference), tree, torch.float32) for tree in trees]
    assert [[len(branch) for branch in tree] for tree in found] == [[len(branch) for branch in tree] for tree in truth]
    assert root_mean_square_error(found, truth) <= 2 * root_mean_square_error(naive, truth)


def test_logits_in_pieces_are_the_same(loaded, monkeypatch):
    trees = random_trees(loaded.output_weight.shape[0], 0)
    whole = score_trees(loaded, trees, batch_size=4, title="t", unit="trees")
    monkeypatch.setattr("megatron_astro.evaluation.likelihood.LOGITS_AT_ONCE", 3 * loaded.output_weight.shape[0])
    pieces = score_trees(loaded, trees, batch_size=4, title="t", unit="trees")
    # Another blocking of the same float32 sums of 32 products, of logits below 64: 32 * 64 * 2^-24.
    assert flat(pieces) == pytest.approx(flat(whole), abs=32 * 64 * 2**-24)


def test_layout_feeds_no_last_token_and_restarts_positions():
    row = lay_out(TokenTree(name="t", stem=(7, 8, 9), branches=((1, 2, 3), (4,), (5, 6)), first_scored=(0, 0, 1)), shared=1)
    assert row.tokens == (8, 9, 1, 2, 5)
    assert row.positions == (1, 2, 3, 4, 3)
    assert row.segments == (0, 0, 1, 1, 3)
    assert row.first_predicting == 1
    assert row.sources == ((1, 2, 3), (1,), (4,))
    assert row.targets == ((1, 2, 3), (4,), (6,))


def test_a_tree_too_long_for_the_model_is_named(loaded):
    tree = TokenTree(name="question q9", stem=(5,) * 510, branches=((5, 5, 5),), first_scored=(0,))
    with pytest.raises(DataError, match=r"question q9 is 513 tokens long .* the model sees 512"):
        score_trees(loaded, [tree], batch_size=1, title="t", unit="trees")


def test_a_token_the_model_does_not_have_is_named(loaded):
    tree = TokenTree(name="question q9", stem=(5,), branches=((9999,),), first_scored=(0,))
    with pytest.raises(DataError, match=r"question q9: .* gives token 9999, but the model's tokens run from 0 to 3"):
        score_trees(loaded, [tree], batch_size=1, title="t", unit="trees")


def test_weights_that_are_not_numbers_are_an_error(loaded):
    broken = LoadedModel(**{**vars(loaded), "output_weight": loaded.output_weight * float("nan")})
    with pytest.raises(CheckpointError, match="not finite"):
        score_trees(broken, random_trees(300, 0), batch_size=4, title="t", unit="trees")
