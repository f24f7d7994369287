"""Ranks that hash a checkpoint together find the root that one process finds, or say why they did not look."""

import logging

import pytest

from megatron_astro.checkpoint import shared_certificate as module
from megatron_astro.checkpoint.certify import certify, read_certificate
from megatron_astro.checkpoint.conversion_plan import open_checkpoint
from megatron_astro.parallel.launch import single_process


def test_exports_carry_the_root_of_what_they_hold(spread):
    """Two ranks, half of the tensors each."""
    target = spread(2, tied=True)
    roots = {read_certificate(path).root for path in target.glob("*_float32/certificate.json")}
    assert roots == {certify(open_checkpoint(target / "hf")).root}
    assert len(list(target.glob("*_float32/certificate.json"))) == 5


@pytest.mark.parametrize(
    ("when", "spare_bytes", "text"),
    [
        ("auto", 0, "root"),
        ("auto", -1, "each of 1 ranks would read 0.0 GB"),
        ("always", -1, "root"),
        ("never", 0, "training.certify is never"),
    ],
)
def test_the_log_says_whether_and_why(gqa, monkeypatch, caplog, when, spare_bytes, text):
    reader = open_checkpoint(gqa)
    expected = certify(reader)
    monkeypatch.setattr(module, "LARGEST_SHARE_BYTES", expected.num_bytes + spare_bytes)
    with single_process(), caplog.at_level(logging.INFO):
        found = module.certify_together(reader, when, "step_000010")
    assert (found.root if found else None) == (expected.root if text == "root" else None)
    assert "step_000010" in caplog.text
    assert text in caplog.text
