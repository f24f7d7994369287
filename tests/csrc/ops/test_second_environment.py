"""One build for several versions of torch and Python: what is built here runs in a second environment, and the other way round.

    python -m venv second && second/bin/pip install "torch==2.11.*" numpy setuptools pybind11
    MEGATRON_ASTRO_SECOND_PYTHON=second/bin/python python -m pytest tests/csrc/ops/test_second_environment.py

The kernel library belongs to no version of either; the pybind11 modules beside it belong to one version of Python, so a wheel is built by
the Python that is to load it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow  # a wheel is built

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "megatron_astro/_ops_kernels.so"

VERSIONS = "import sys, torch; print(sys.version_info[:2], torch.__version__.partition('+')[0].rpartition('.')[0])"

# Every operation that has a result to compare, once forward and once backward where it has one, against float64.
RUN_LIBRARY = """
import sys, torch, torch.nn.functional as F
torch.ops.load_library(sys.argv[1])
ops, close = torch.ops.megatron_astro, torch.testing.assert_close
torch.manual_seed(0)
x, w, g = torch.randn(6, 50), torch.randn(50), torch.randn(6, 50)
a, b = x.double().requires_grad_(), w.double().requires_grad_()
truth = F.rms_norm(a, (50,), b, 1e-5)
truth.backward(g.double())
y, inverse = ops.rms_norm(x, w, 1e-5)
for ours, exact in zip((y, *ops.rms_norm_backward(g, None, x, w, inverse)), (truth, a.grad, b.grad)):
    close(ours, exact.float())
gate, up = x.double().chunk(2, -1)
close(ops.swiglu(x), (F.silu(gate) * up).float())
close(ops.swiglu(x.bfloat16()), (F.silu(x.bfloat16().double()[:, :25]) * x.bfloat16().double()[:, 25:]).bfloat16())
labels = torch.tensor([0, 49, -100, 7, 8, 9])
m, s, t = ops.cross_entropy_statistics(x, labels, 0, -100)
close(s.log() + m - t, F.cross_entropy(x.double(), labels, reduction="none").float())
q, k = ops.rope(torch.randn(3, 1, 2, 8), torch.randn(3, 1, 1, 8), torch.rand(4), None, 0, False)
close(ops.causal_softmax(torch.zeros(1, 3, 3), 1.0)[0], torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3]))
close(ops.squared_norm([x, g]), (x.double() ** 2).sum() + (g.double() ** 2).sum())
for call in (lambda: ops.swiglu(x.t()), lambda: ops.swiglu(x.half())):
    try:
        call()
    except RuntimeError as error:
        print("refused:", str(error).splitlines()[0])
    else:
        raise SystemExit("not refused")
print("torch", torch.__version__, "python", sys.version.split()[0])
"""

RUN_PACKAGE = """
import torch
from megatron_astro.ops.registry import OPERATIONS
from megatron_astro.ops.report import report
from megatron_astro.ops.rms_norm import rms_norm_fused, rms_norm_reference
x, w = torch.randn(4, 64, requires_grad=True), torch.ones(64, requires_grad=True)
rms_norm_fused(x, w, 1e-5).square().sum().backward()
torch.testing.assert_close(rms_norm_fused(x, w, 1e-5), rms_norm_reference(x, w, 1e-5))
print(report(torch.device("cpu")))
import megatron_astro._data, megatron_astro._corpus
"""


def run(*command, **environment):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def second():
    """The Python of the second environment, whose torch or Python is another version."""
    path = os.environ.get("MEGATRON_ASTRO_SECOND_PYTHON")
    if path is None:
        pytest.skip("needs a second environment with another torch >= 2.11: MEGATRON_ASTRO_SECOND_PYTHON=/path/to/its/python")
    assert run(path, "-c", VERSIONS) != run(sys.executable, "-c", VERSIONS), f"{path} has the same Python and torch as this one"
    return path


@pytest.fixture(scope="module")
def wheel(second, tmp_path_factory):
    """A wheel built by the second Python against its own torch, without CUDA, from a copy of the sources; unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "megatron_astro"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = (second, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, source)
    run(*build, MEGATRON_ASTRO_CUDA="off")
    (built,) = folder.glob("*.whl")
    shutil.unpack_archive(built, folder / "unpacked", "zip")
    return folder / "unpacked"


def test_the_kernels_built_here_run_there(second):
    said = run(second, "-c", RUN_LIBRARY, LIBRARY)
    assert "gate_up is not contiguous" in said
    assert torch.__version__ not in said


def test_a_wheel_built_there_loads_there(second, wheel):
    said = run(second, "-P", "-c", RUN_PACKAGE, PYTHONPATH=str(wheel))  # -P: not the package of the working folder
    assert "fused" in said


def test_the_kernels_of_that_wheel_run_here(wheel):
    run(sys.executable, "-c", RUN_LIBRARY, wheel / "megatron_astro/_ops_kernels.so")
