import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.data.packing import document_starts


def cut(seq_length, cuts):
    return np.diff([0, *sorted(set(cuts)), seq_length + 1]).tolist()


@given(st.integers(1, 20), st.data())
def test_starts_masks_and_positions_equal_a_loop_over_tokens(seq_length, data):
    cuts = st.lists(st.integers(1, seq_length), max_size=seq_length)
    lengths = [cut(seq_length, data.draw(cuts)) for _ in range(data.draw(st.integers(1, 3)))]
    samples = np.repeat(np.arange(len(lengths)), [len(row) for row in lengths])
    starts = document_starts(samples, np.concatenate(lengths), seq_length)
    cu_seqlens, positions, mask = [], [], []
    for row, row_lengths in enumerate(lengths):
        owners = [owner for owner, length in enumerate(row_lengths) for _ in range(length)]
        for token in range(seq_length):
            begins = token == 0 or owners[token] != owners[token - 1]
            if begins:
                cu_seqlens.append(row * seq_length + token)
            positions.append(0 if begins else positions[-1] + 1)
            mask.append(float(owners[token] == owners[token + 1]))
    assert starts.cu_seqlens.tolist() == [*cu_seqlens, len(positions)]
    assert starts.position_ids.flatten().tolist() == positions
    assert starts.loss_mask.flatten().tolist() == mask
    assert starts.position_ids.shape == starts.loss_mask.shape == (len(lengths), seq_length)
