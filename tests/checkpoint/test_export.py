"""A folder that ranks write together from memory is, byte for byte, the folder that a conversion writes."""

import pytest

from megatron_astro.checkpoint.convert import convert

OF_A_CONVERSION = {"certificate.json", "parity.json", "conversion.jsonl"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OF_A_CONVERSION}


@pytest.mark.parametrize(
    ("ranks", "tied"),
    [(2, True), pytest.param(2, False, marks=pytest.mark.slow), pytest.param(3, True, marks=pytest.mark.slow),
     pytest.param(4, False, marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_export_is_a_conversion_at_every_layout(spread, ranks, tied, tmp_path):
    target = spread(ranks, tied=tied)
    for dtype in ("float32", "bfloat16"):
        convert(
            target / "hf", tmp_path / dtype, target_format="huggingface", dtype=dtype, verification="headers", shard_bytes=200_000
        )
        expected, exports = contents(tmp_path / dtype), sorted(target.glob(f"*_{dtype}"))
        assert len(expected) > 4, "several weight files, an index, a configuration"
        assert len(exports) == {2: 4, 3: 1, 4: 2}[ranks]
        for export in exports:
            assert contents(export) == expected, export.name
