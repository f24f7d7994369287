"""What the CUDA compiler made of the kernels, for a Hopper GPU: nothing kept in memory that belongs into registers, 128-bit accesses."""

import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # half a minute of compiling

OPS = Path(__file__).parents[3] / "csrc/ops"
SOURCES = sorted(path for path in OPS.glob("*.cu") if path.stem != "device")


def toolkit():
    """Where nvcc is, with its disassembler; skip where it is not."""
    found = shutil.which("nvcc")
    roots = [Path("/usr/local/cuda"), *([Path(found).resolve().parents[1]] if found else [])]
    root = next((root for root in roots if (root / "bin/nvcc").is_file()), None)
    if root is None:
        pytest.skip("needs nvcc, of NVIDIA's CUDA toolkit")
    return root


def disassembler():
    """cuobjdump, beside nvdisasm: in the toolkit, or from the packages that carry the two."""
    folders = [toolkit() / "bin", *Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin")]
    found = next((folder / "cuobjdump" for folder in folders if (folder / "nvdisasm").is_file()), None)
    if found is None:
        pytest.skip("needs cuobjdump and nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Every .cu source for sm_90a: operation -> (object, what ptxas says of each kernel)."""
    folder, root = tmp_path_factory.mktemp("machine_code"), toolkit()

    def build(source):
        output = folder / f"{source.stem}.o"
        architecture = "-gencode=arch=compute_90a,code=sm_90a"
        command = [root / "bin/nvcc", "-std=c++20", "-O3", "-Xptxas", "-v", architecture, "-c", source, "-o", output]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return output, done.stderr

    with ThreadPoolExecutor(2) as pool:
        return dict(zip((source.stem for source in SOURCES), pool.map(build, SOURCES), strict=True))


@pytest.mark.parametrize("operation", [source.stem for source in SOURCES])
def test_nothing_spills_and_no_stack(compiled, operation):
    kernels = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", compiled[operation][1])
    assert kernels
    assert set(kernels) == {("0", "0", "0")}


@pytest.mark.parametrize("operation", [source.stem for source in SOURCES])
def test_memory_is_read_and_written_16_bytes_at_a_time(compiled, operation):
    command = [str(disassembler()), "-sass", str(compiled[operation][0])]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"\bLDG\.E[\w.]*\.128", code) or operation == "causal_softmax", "no 128-bit load"
    assert re.search(r"\bSTG\.E[\w.]*\.128", code), "no 128-bit store"
    assert not re.search(r"\b(LDL|STL)\b", code), "local memory is used"
