"""The .cu sources, compiled for a CPU (cuda_on_cpu/): the same tensor checks and registration, and threads that are fibers."""

import ctypes
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[3]
OPS = ROOT / "csrc/ops"
SHIM = Path(__file__).parent / "cuda_on_cpu"
SOURCES = {path.stem: path for path in sorted(OPS.glob("*.cu")) if path.stem != "device"}
TORCH = Path(torch.__file__).parent
ARGUMENTS = [
    "g++", "-std=c++20", "-O2", "-g0", "-U_FORTIFY_SOURCE", "-fPIC", "-shared",
    "-DMEGATRON_ASTRO_CUDA_ON_CPU", "-DTORCH_TARGET_VERSION=0x020b000000000000",
    "-I", str(SHIM), "-iquote", str(OPS), "-isystem", str(TORCH / "include"),
    "-isystem", str(TORCH / "include/torch/csrc/api/include"),
]  # fmt: skip


def compile_library(output, library, sources, operation):
    """Compile a .cu source and its bindings into one library; its operations are `torch.ops.LIBRARY`."""
    command = [*ARGUMENTS, f"-DMEGATRON_ASTRO_LIBRARY={library}", "-x", "c++", *map(str, sources)]
    command += [str(OPS / "bindings" / f"{operation}.cpp"), str(SHIM / "fibers.cpp")]
    command += [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def load(path, library):
    torch.ops.load_library(path)
    return SimpleNamespace(ops=getattr(torch.ops, library), schedule=ctypes.CDLL(str(path)).cuda_on_cpu_schedule)


@pytest.fixture(scope="session")
def cuda_libraries(tmp_path_factory):
    """Every .cu source, compiled side by side: operation -> its library."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    with ThreadPoolExecutor(2) as pool:
        for future in [
            pool.submit(compile_library, folder / f"{name}.so", f"{name}_on_cpu", [path], name) for name, path in SOURCES.items()
        ]:
            future.result()
    return {name: load(folder / f"{name}.so", f"{name}_on_cpu") for name in SOURCES}


@pytest.fixture(params=["forward", "backward", "shuffled"])
def schedule(request, cuda_libraries):
    """Run the threads of a block in each order in turn."""
    for library in cuda_libraries.values():
        library.schedule(["forward", "backward", "shuffled"].index(request.param))
    yield request.param
    for library in cuda_libraries.values():
        library.schedule(0)


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Compile a .cu source with one text replaced by another: a bug that some test must see."""
    folder = tmp_path_factory.mktemp("planted")

    def plant(operation, text, replacement, number):
        content = SOURCES[operation].read_text()
        header = (OPS / "block.cuh").read_text()
        assert (content + header).count(text) >= 1, f"{operation}.cu no longer says {text!r}"
        here = folder / f"{operation}_{number}"
        here.mkdir()
        (here / "block.cuh").write_text(header.replace(text, replacement))
        (here / f"{operation}.cu").write_text(content.replace(text, replacement))
        library = f"planted_{operation}_{number}"
        compile_library(here / "library.so", library, [here / f"{operation}.cu"], operation)
        return load(here / "library.so", library)

    return plant


@pytest.fixture(scope="session")
def assert_close():
    """The rule of tests/ops: against float64, at most twice PyTorch's error, and half a unit in the last place."""

    def check(ours, reference, truth):
        assert ours.shape == reference.shape == truth.shape
        unit = torch.finfo(ours.dtype).eps
        ours, reference = ours.double(), reference.double()
        finite = truth.isfinite()
        assert torch.equal(ours[~finite], truth[~finite])
        allowed = 2 * (reference - truth)[finite].abs().max() + unit / 2 * truth[finite].abs().max()
        worst = (ours - truth)[finite].abs().max()
        assert worst <= allowed, f"error {worst:.3g} > {allowed:.3g}"

    return check
