import warnings

import numpy as np
import pytest

from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.indexed_writer import IndexedWriter

with warnings.catch_warnings():  # what torch and megatron-core say about themselves when first imported is not ours to mend
    warnings.simplefilter("ignore")
    import megatron.core.datasets.gpt_dataset  # noqa: F401


@pytest.fixture(scope="session")
def write_tokens():
    """A function that writes documents (lists of ids) as a dataset without sidecar and returns its prefix."""

    def write(prefix, documents, dtype=np.uint16):
        with IndexedWriter(dataset_file(prefix, "bin"), dataset_file(prefix, "idx"), np.dtype(dtype)) as writer:
            for document in documents:
                writer.add_document(document)
        return prefix

    return write


@pytest.fixture(scope="session")
def write_numbered(write_tokens):
    """A function that writes documents of given lengths whose ids count all tokens from `first` on: no id comes twice."""

    def write(prefix, lengths, first=0):
        starts = np.cumsum([first, *lengths])
        return write_tokens(prefix, [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)])

    return write
