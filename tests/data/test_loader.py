import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.config.run import DataConfig
from megatron_astro.data.dataset_files import mask_prefix
from megatron_astro.data.loader import BatchLoader
from megatron_astro.data.samples import open_sample_stream
from megatron_astro.errors import ConfigError

SEQ_LENGTH = 6


@pytest.fixture(scope="module")
def stream(tmp_path_factory, write_numbered):
    prefix = write_numbered(tmp_path_factory.mktemp("loader") / "data", [5, 17, 0, 8, 30, 2, 11])
    config = DataConfig(prefixes=(prefix,), seq_length=SEQ_LENGTH, seed=3)
    return open_sample_stream(config, num_samples=100, vocabulary_size=100)


def open_loader(stream, *, dp_rank=0, dp_size=1, micro_batch_size=2, global_batch_size=24, consumed_samples=0, reset=False):
    return BatchLoader(
        stream, dp_rank=dp_rank, dp_size=dp_size, micro_batch_size=micro_batch_size, global_batch_size=global_batch_size,
        consumed_samples=consumed_samples, reset_at_documents=reset,
    )  # fmt: skip


@given(st.sampled_from((1, 2, 3, 4)), st.sampled_from((1, 2, 3)), st.integers(0, 30))
def test_ranks_share_out_the_same_samples_at_any_layout(stream, dp_size, micro_batch_size, consumed):
    global_batch_size = 24 if micro_batch_size < 3 else 36
    num_steps = (100 - consumed) // global_batch_size
    micro_batches = global_batch_size // (dp_size * micro_batch_size)
    by_rank = [
        list(
            open_loader(
                stream, dp_rank=rank, dp_size=dp_size, micro_batch_size=micro_batch_size, global_batch_size=global_batch_size,
                consumed_samples=consumed,
            )
        )
        for rank in range(dp_size)
    ]  # fmt: skip
    for rank, batches in enumerate(by_rank):
        assert len(batches) == num_steps * micro_batches
        for batch in batches:
            assert all((n - consumed) // micro_batch_size % dp_size == rank for n in batch.sample_numbers)
    for step in range(num_steps):
        of_step = [batch for batches in by_rank for batch in batches[step * micro_batches : (step + 1) * micro_batches]]
        numbers = sorted(number for batch in of_step for number in batch.sample_numbers)
        assert numbers == list(range(consumed + step * global_batch_size, consumed + (step + 1) * global_batch_size))


def test_batches_hold_their_samples(stream):
    for batch in open_loader(stream, dp_rank=1, dp_size=2):
        for row, number in enumerate(batch.sample_numbers):
            sample = np.empty((1, SEQ_LENGTH + 1), np.int64)
            (parts,) = stream.read(number, sample).by_sample()
            assert batch.tokens[row].tolist() == sample[0, :-1].tolist()
            assert batch.labels[row].tolist() == sample[0, 1:].tolist()
            assert batch.document_ids[row] == parts.document_ids
        assert batch.tokens.dtype == batch.labels.dtype == batch.position_ids.dtype == torch.int64
        assert batch.tokens.shape == batch.labels.shape == batch.loss_mask.shape == batch.position_ids.shape == (2, SEQ_LENGTH)
        assert torch.equal(batch.position_ids[1], torch.arange(SEQ_LENGTH))
        assert torch.equal(batch.loss_mask, torch.ones(2, SEQ_LENGTH))
        assert batch.tokens.data_ptr() + 8 == batch.labels.data_ptr()
        assert batch.cu_seqlens is None


def test_constant_tensors_are_made_once_and_ids_are_not(stream):
    first, second, *_ = open_loader(stream)
    assert first.loss_mask.data_ptr() == second.loss_mask.data_ptr()
    assert first.position_ids.data_ptr() == second.position_ids.data_ptr()
    assert first.ids.data_ptr() != second.ids.data_ptr()


def test_documents_of_a_batch_start_where_they_do_in_its_samples(stream):
    plain, reset = list(open_loader(stream)), list(open_loader(stream, reset=True))
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(plain, reset, strict=True))
    for batch in reset:
        owners = []
        for number in batch.sample_numbers:
            (parts,) = stream.read(number, np.empty((1, SEQ_LENGTH + 1), np.int64)).by_sample()
            owners.append(np.repeat(np.arange(len(parts.lengths)), parts.lengths))
        changes = np.diff(np.stack(owners)) != 0
        assert torch.equal(batch.loss_mask, torch.from_numpy(~changes).float())
        starts = batch.position_ids.flatten() == 0
        assert batch.cu_seqlens.tolist() == [*torch.nonzero(starts).flatten().tolist(), 2 * SEQ_LENGTH]
        assert starts.reshape(2, SEQ_LENGTH)[:, 1:].tolist() == changes[:, :-1].tolist()


@pytest.mark.parametrize("reset", [False, True])
def test_labels_that_do_not_count_have_no_loss(tmp_path, write_numbered, write_tokens, reset):
    lengths = [5, 17, 8, 30]
    prefix = write_numbered(tmp_path / "chats", lengths)
    config = DataConfig(prefixes=(prefix,), seq_length=SEQ_LENGTH, seed=3)
    whole = list(open_loader(open_sample_stream(config, num_samples=24, vocabulary_size=100), reset=reset))
    write_tokens(mask_prefix(prefix), np.split((np.arange(60) % 3 == 0).astype(int), np.cumsum(lengths)[:-1]), np.uint8)
    masked = list(open_loader(open_sample_stream(config, num_samples=24, vocabulary_size=100), reset=reset))
    for batch, reference in zip(masked, whole, strict=True):
        assert torch.equal(batch.ids, reference.ids)
        assert torch.equal(batch.loss_mask, reference.loss_mask * (batch.labels % 3 == 0))
    assert len(masked) == 12


def test_resuming_goes_on_where_it_stopped(stream):
    whole = [batch.sample_numbers for batch in open_loader(stream)]
    resumed = [batch.sample_numbers for batch in open_loader(stream, consumed_samples=48)]
    assert len(whole) == 48
    assert resumed == whole[24:]


def test_ends_with_the_last_whole_global_batch(stream):
    loader = open_loader(stream, consumed_samples=76)
    assert [batch.sample_numbers for batch in loader][-1] == range(98, 100)
    with pytest.raises(StopIteration):
        next(loader)
    assert list(open_loader(stream, consumed_samples=77)) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dp_size": 5}, "global_batch_size 24 is not a multiple of micro_batch_size 2 times 5 data-parallel ranks"),
        ({"micro_batch_size": 0}, "micro_batch_size 0"),
        ({"global_batch_size": 0}, "global_batch_size 0"),
        ({"dp_size": 0}, "0 data-parallel ranks"),
        ({"dp_rank": 2, "dp_size": 2}, "dp_rank is 2; with 2 data-parallel ranks it lies from 0 to 1"),
        ({"dp_rank": -1}, "dp_rank is -1"),
        ({"consumed_samples": -1}, "consumed_samples is -1"),
    ],
)
def test_bad_layouts_are_named(stream, options, text):
    with pytest.raises(ConfigError, match=text):
        open_loader(stream, **options)
