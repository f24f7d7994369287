import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from megatron_astro.corpus.jsonl import open_corpus
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.evaluation.loss import measure_loss

TEXTS = {"long": "The Sun is a star of 5772 K. " * 6, "short": "White dwarfs cool.", "one": "x"}


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": name, "text": text, "split": "heldout"}) for name, text in TEXTS.items()]
    path.write_text("\n".join([*lines, json.dumps({"id": "t", "text": "not this one", "split": "train"})]))
    return open_corpus(path, "heldout")


def test_loss_is_transformers_own(loaded, corpus):
    """Whole documents in one window: the loss `transformers` computes from labels, weighted by predicted tokens.

    Tolerance: float32 logits below 64 as sums of 32 products, so 32 * 64 * 2^-23 a token, and no more for their mean.
    """
    model = AutoModelForCausalLM.from_pretrained(loaded.folder)
    record = measure_loss(loaded, corpus, window=512, batch_size=2)
    sums = {}
    for name, text in TEXTS.items():
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
        if ids.shape[1] > 1:
            with torch.inference_mode():
                sums[name] = (model(ids, labels=ids).loss.item() * (ids.shape[1] - 1), ids.shape[1] - 1)
    assert [(item.document_id, item.num_tokens) for item in record.by_document] == [(name, sums[name][1]) for name in sums]
    assert record.num_tokens == sum(count for _, count in sums.values())
    assert record.loss == pytest.approx(sum(loss for loss, _ in sums.values()) / record.num_tokens, abs=32 * 64 * 2**-23)
    assert record.perplexity == pytest.approx(math.exp(record.loss))
    num_bytes = sum(len(TEXTS[name]) for name in sums)
    assert record.bits_per_byte == pytest.approx(record.loss * record.num_tokens / math.log(2) / num_bytes)


def test_windows_predict_every_token_but_the_first_once(loaded, corpus):
    model = AutoModelForCausalLM.from_pretrained(loaded.folder)
    record = measure_loss(loaded, corpus, window=16, batch_size=3)
    ids = loaded.tokenizer(TEXTS["long"])["input_ids"]
    long = next(item for item in record.by_document if item.document_id == "long")
    assert long.num_tokens == len(ids) - 1
    total = 0.0
    for start in range(0, len(ids) - 1, 15):
        piece = torch.tensor([ids[start : start + 16]])
        with torch.inference_mode():
            total += model(piece, labels=piece).loss.item() * (piece.shape[1] - 1)
    assert long.loss_sum == pytest.approx(total, abs=len(ids) * 32 * 64 * 2**-23)


@pytest.mark.parametrize("window", [1, 513])
def test_a_window_the_model_cannot_see(loaded, corpus, window):
    with pytest.raises(ConfigError, match=f"window is {window}; give 2 to 512"):
        measure_loss(loaded, corpus, window=window, batch_size=2)


def test_documents_too_short_to_predict_anything(loaded, tmp_path):
    (tmp_path / "documents.jsonl").write_text('{"id": "x", "text": "x"}')
    with pytest.raises(DataError, match="holds no document of two tokens"):
        measure_loss(loaded, open_corpus(tmp_path / "documents.jsonl"), window=64, batch_size=2)
