import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron_astro.corpus.near_duplicates import EDGE, MAX_ALL_PAIRS, clusters, groups_of_equal, pairs_to_compare


@given(st.lists(st.integers(0, 5), max_size=30))
def test_groups_hold_every_repeated_value(values):
    groups = sorted(sorted(group) for group in groups_of_equal(np.array(values, dtype=np.uint64)))
    expected = sorted(
        [place for place, other in enumerate(values) if other == value] for value in set(values) if values.count(value) > 1
    )
    assert groups == expected


def test_small_groups_are_compared_whole_and_large_ones_stay_connected():
    assert list(pairs_to_compare([7, 8, 9])) == [(7, 8), (7, 9), (8, 9)]
    members = list(range(MAX_ALL_PAIRS + 1))
    pairs = list(pairs_to_compare(members))
    assert len(pairs) == 2 * len(members) - 3
    assert clusters(np.array([(*pair, 1.0) for pair in pairs], dtype=EDGE)) == [members]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20), st.randoms())
def test_clusters_are_the_connected_documents_whatever_the_order(pairs, shuffler):
    neighbours = {node: {node} for pair in pairs for node in pair}
    for _ in neighbours:  # as many rounds as nodes reach every connected one
        for first, second in pairs:
            joined = neighbours[first] | neighbours[second]
            for node in joined:
                neighbours[node] = neighbours[node] | joined
    expected = sorted({tuple(sorted(group)) for group in neighbours.values()})
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    found = clusters(np.array([(*pair, 1.0) for pair in shuffled], dtype=EDGE))
    assert [tuple(group) for group in found] == expected
