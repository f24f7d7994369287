from dataclasses import replace

import numpy as np
import pytest

from megatron_astro.config.run import DataConfig
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter
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
