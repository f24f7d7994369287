"""The probe's loss, a layer at a time, is that of transformers' whole model."""

import pytest
import torch

from megatron_astro.checkpoint.huggingface import HuggingFaceReader
from megatron_astro.checkpoint.parity import hugging_face_logits, probe_loss, probe_tokens
from megatron_astro.checkpoint.probe import hugging_face_probe_loss

# The same operations in the same order, but for the output's product, which comes in blocks of rows: float32's last digits.
TOLERANCE = 1e-5


def test_layer_by_layer_is_the_whole_model(family):
    reader = HuggingFaceReader(family)
    tokens = probe_tokens(family, reader.sizes)
    whole = probe_loss(hugging_face_logits(family, tokens, reader.sizes, None), tokens)
    assert hugging_face_probe_loss(reader, tokens) == pytest.approx(whole, abs=TOLERANCE)


def test_bfloat16_weights_are_computed_in_float32(make_llama):
    folder = make_llama(dtype=torch.bfloat16)
    reader = HuggingFaceReader(folder)
    tokens = probe_tokens(folder, reader.sizes)
    whole = probe_loss(hugging_face_logits(folder, tokens, reader.sizes, None), tokens)
    assert hugging_face_probe_loss(reader, tokens) == pytest.approx(whole, abs=TOLERANCE)
