import subprocess
import sys

SCRIPT = """
import torch
from megatron_astro.model import cpu_support

cpu_support.install()
cpu_support.install()  # once more changes nothing
assert torch.cuda.current_device() == torch.device("cpu")
assert torch.zeros(2, device="cuda").device.type == "cpu"
compiled = torch.compile(lambda x: (x * 2).relu().sum(), fullgraph=True, backend="aot_eager")
assert compiled(torch.ones(3)) == 6
"""


def test_stands_in_for_cuda_and_lets_torch_compile():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
