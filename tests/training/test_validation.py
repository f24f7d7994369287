import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.training.validation import Probe, check_start, cut_windows, windowed_loss

from megatron_astro.data.samples import DocumentTokens
from megatron_astro.errors import CheckpointError

LOSS_TOLERANCE = 96 * 2 * 2**-23  # float32 sums over 96 numbers in each of two layers


def document(number, length):
    return DocumentTokens(document_id=number, tokens=np.random.default_rng(number).integers(0, 306, length))


DOCUMENTS = [document(number, length) for number, length in enumerate((2, 9, 1, 24))]


@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("seq_length", [1, 3, 5])
def test_every_token_but_the_first_is_predicted_once(length, seq_length):
    text = DocumentTokens(document_id=0, tokens=np.arange(length))
    windows = list(cut_windows(text, seq_length))
    assert [int(token) for window in windows for token in window.tokens[1:]] == list(range(1, length))
    assert all(2 <= len(window.tokens) <= seq_length + 1 for window in windows)
    assert sum(window.num_labels for window in windows) == text.num_labels


@pytest.mark.parametrize("seq_length", [8, 64])
def test_the_loss_is_the_mean_over_all_predicted_tokens(alone, loss_by_torch, seq_length):
    """Short windows are padded, and what pads them does not count."""
    windows = [window.tokens for text in DOCUMENTS for window in cut_windows(text, seq_length)]
    expected = loss_by_torch(alone.model, windows)
    assert windowed_loss(alone.model, DOCUMENTS, alone.plan, seq_length) == pytest.approx(expected, rel=LOSS_TOLERANCE)


def test_measuring_leaves_the_model_ready_to_train(alone):
    before = [parameter.detach().clone() for parameter in alone.model[0].parameters()]
    windowed_loss(alone.model, DOCUMENTS, alone.plan, 8)
    assert alone.model[0].training
    assert all((new == old).all() for new, old in zip(alone.model[0].parameters(), before, strict=True))


def test_a_start_is_proven_by_its_loss(alone, loss_by_torch):
    tokens = tuple(DOCUMENTS[3].tokens.tolist())
    loss = loss_by_torch(alone.model, [tokens])
    assert check_start(alone.model, Probe(tokens, loss, "torch"), alone.plan, 1e-4) == pytest.approx(loss, rel=LOSS_TOLERANCE)
    for other in (loss + 0.01, loss - 0.01, float("nan")):
        with pytest.raises(CheckpointError, match=r"is not the one that was read: .* by torch"):
            check_start(alone.model, Probe(tokens, other, "torch"), alone.plan, 1e-4)


def test_windows_share_a_token_and_those_without_a_label_that_counts_are_left_out():
    ids = np.arange(10)
    windows = cut_windows(DocumentTokens(document_id="papers", tokens=ids), 4)
    assert [window.tokens.tolist() for window in windows] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]
    chat = DocumentTokens(document_id="chat", tokens=ids, loss_mask=np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0]))
    (window,) = cut_windows(chat, 4)
    assert (window.tokens.tolist(), window.loss_mask.tolist()) == ([4, 5, 6, 7, 8], [0, 0, 0, 1, 1])
