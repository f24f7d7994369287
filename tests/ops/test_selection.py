import logging

import pytest
import torch

from megatron_astro.errors import KernelUnavailableError
from megatron_astro.ops import native, selection
from megatron_astro.ops.registry import OPERATIONS
from megatron_astro.ops.rms_norm import RMS_NORM, rms_norm_fused, rms_norm_reference
from megatron_astro.ops.selection import Choice

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_takes_the_kernel_where_it_runs_and_says_why(caplog):
    with caplog.at_level(logging.INFO, logger=selection.__name__):
        assert RMS_NORM.select("auto", CPU, torch.bfloat16) is rms_norm_fused
        assert RMS_NORM.select("auto", CPU, torch.float64) is rms_norm_reference
        assert RMS_NORM.select("reference", CPU, torch.float32) is rms_norm_reference
    assert [record.getMessage() for record in caplog.records] == [
        f"ops: rms_norm is fused ({native.describe(CPU)})",
        "ops: rms_norm is reference (the kernels compute in float32 and bfloat16, not float64)",
        "ops: rms_norm is reference (asked for)",
    ]


def test_a_kernel_asked_for_by_name_that_cannot_run_is_an_error():
    with pytest.raises(
        KernelUnavailableError, match=r"ops.rms_norm is fused, but on cpu in float64 it cannot be: .*choose auto or"
    ):
        RMS_NORM.select("fused", CPU, torch.float64)


def test_a_build_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(native._ops, "cuda_architectures", lambda: "")
    with pytest.raises(KernelUnavailableError, match="MEGATRON_ASTRO_CUDA=on"):
        RMS_NORM.select("fused", CUDA, torch.float32)
    choice = RMS_NORM.choose("auto", CUDA, torch.float32)
    assert (choice.backend, choice.reason[:30]) == ("reference", "this build has no CUDA kernels")


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((8, 0), "80"), ((8, 6), "80"), ((8, 9), "89"), ((9, 0), "90a"), ((10, 0), "100"), ((10, 3), "100")],
)
def test_a_gpu_runs_its_own_architecture_or_an_earlier_one_of_its_generation(monkeypatch, capability, architecture):
    monkeypatch.setattr(native._ops, "cuda_architectures", lambda: "80 89 90a 100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert RMS_NORM.choose("auto", CUDA, torch.float32) == Choice(backend="fused", reason=f"sm_{architecture}")


@pytest.mark.parametrize("capability", [(7, 5), (12, 0)])
def test_a_gpu_of_another_generation_gets_the_reference(monkeypatch, capability):
    monkeypatch.setattr(native._ops, "cuda_architectures", lambda: "80 89 90a 100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    choice = RMS_NORM.choose("auto", CUDA, torch.float32)
    assert choice.backend == "reference"
    assert choice.reason == f"the GPU is sm_{capability[0] * 10 + capability[1]}, the kernels were built for 80 89 90a 100"


def test_other_devices_get_the_reference():
    assert RMS_NORM.choose("auto", torch.device("mps"), torch.float32).reason == "there are kernels for cpu and cuda, not mps"


def test_names_are_told_apart():
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
