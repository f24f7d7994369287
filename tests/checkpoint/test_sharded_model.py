"""Each rank's parameters, loaded from slices of a Hugging Face folder, are those megatron-core loads from its conversion."""

import json

import pytest


@pytest.mark.parametrize(
    ("ranks", "tied"),
    [(2, True), pytest.param(2, False, marks=pytest.mark.slow), pytest.param(3, True, marks=pytest.mark.slow),
     pytest.param(4, False, marks=pytest.mark.slow)],
)  # fmt: skip
def test_every_rank_holds_what_megatron_core_loads(spread, ranks, tied):
    found = sorted(spread(ranks, tied=tied).glob("*.json"))
    assert len(found) == {2: 10, 3: 2, 4: 4}[ranks] * ranks
    for path in found:
        names, wrong = json.loads(path.read_text())
        assert names
        assert wrong == [], path.name
