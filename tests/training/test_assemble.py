import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from megatron_astro.config.run import DataConfig
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
from megatron_astro.data.samples import open_sample_stream
from megatron_astro.training.assemble import data_fingerprint


@pytest.fixture
def config(tmp_path):
    prefix = tmp_path / "data"
    with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(np.uint16)) as writer:
        writer.add_document(np.arange(9))
    return DataConfig(prefixes=(prefix,))


def test_the_fingerprint_is_of_what_decides_the_stream(config):
    other = [{"seed": 1}, {"seq_length": 7}, {"weights": (1.0,)}, {"index": "flat"}, {"index": "exact"}, {"chunk_documents": 7}]
    prints = [data_fingerprint(replace(config, **change), 10) for change in [{}, *other]]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("index", "num_samples", "changes"),
    [
        ("chunked", 11, {}),
        ("flat", 11, {"seed": 1, "chunk_documents": 7}),
        ("exact", 10, {"chunk_documents": 7}),
        ("chunked", 10, {"reset_at_documents": True}),
    ],
)
def test_the_fingerprint_leaves_out_what_does_not(config, index, num_samples, changes):
    first = replace(config, index=index)
    assert data_fingerprint(first, 10) == data_fingerprint(replace(first, **changes), num_samples)


def test_megatrons_order_depends_on_how_many_samples_it_is_made_for(config):
    exact = replace(config, index="exact")
    assert data_fingerprint(exact, 10) != data_fingerprint(exact, 11)


def test_a_loss_mask_counts(config):
    (prefix,) = config.prefixes
    before = data_fingerprint(config, 10)
    mask = mask_prefix(prefix)
    with IndexedWriter(dataset_file(mask, "bin"), dataset_file(mask, "idx"), np.dtype(np.uint8)) as writer:
        writer.add_document(np.ones(9, int))
    assert data_fingerprint(config, 10) != before


def test_only_labels_that_count_are_learned_and_measured_at_any_layout(tmp_path, tiny_start, tiny_data, train, metrics):
    """Conversations and documents blended; ranks whose samples have unlike numbers of labels that count weigh each label the same."""
    random, prefixes = np.random.default_rng(1), [tmp_path / "chats", tiny_data / "train"]
    tokens = [random.integers(0, 306, size) for size in random.integers(5, 33, 60)]
    masks = [(random.random(len(row)) < random.random()).astype(int) for row in tokens]
    for prefix, rows, dtype in ((prefixes[0], tokens, np.uint16), (mask_prefix(prefixes[0]), masks, np.uint8)):
        with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(dtype)) as writer:
            for row in rows:
                writer.add_document(row)
    options = [
        "--data.prefixes",
        *prefixes,
        "--data.heldout-prefix",
        prefixes[0],
        "--training.steps",
        2,
        "--data.heldout-every",
        1,
    ]
    for run_folder, ranks in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        train(run_folder, *options, ranks=ranks)
    np.testing.assert_allclose(metrics(tmp_path / "two"), metrics(tmp_path / "one"), rtol=2e-5)

    model = LlamaForCausalLM.from_pretrained(tiny_start.parent / "hf")
    config = DataConfig(prefixes=tuple(prefixes), seq_length=32)
    stream = open_sample_stream(config, num_samples=8, vocabulary_size=306)
    ids = np.empty((4, 33), np.int64)
    stream.read(0, ids)
    expected = counted_loss(model, [(row, counts) for row, counts in zip(ids, stream.read_loss_mask(0, 4), strict=True)])
    assert metrics(tmp_path / "one")[0][0] == pytest.approx(expected, abs=1e-5)
    (first, *_) = [json.loads(line) for line in (tmp_path / "one" / "heldout.jsonl").read_text().splitlines()]
    expected = counted_loss(model, [(row, mask[1:]) for row, mask in zip(tokens, masks, strict=True)])
    assert first["loss"] == pytest.approx(expected, abs=1e-5)
    assert first["tokens"] == sum(mask[1:].sum() for mask in masks)


def counted_loss(model, rows):
    """Mean loss by transformers over the labels that count; rows of (ids [s + 1], counts [s])."""
    total = number = 0.0
    for ids, counts in rows:
        with torch.no_grad():
            logits = model(torch.from_numpy(np.asarray(ids[:-1], np.int64))[None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.asarray(ids[1:], np.int64)), reduction="none")
        total += float((losses * torch.from_numpy(np.asarray(counts, np.float32))).sum())
        number += float(np.sum(counts))
    return total / number
