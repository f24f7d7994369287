import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import torch
from megatron_astro.parallel.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(16):  # the heap settles after a few
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


def faults_of_the_last_step(mode):
    command = [sys.executable, "-W", "ignore", "-c", COUNT_FAULTS, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose allocator it sets")
def test_a_freed_activation_is_not_faulted_in_again():
    assert faults_of_the_last_step("leave") > 20 * (faults_of_the_last_step("keep") + 1)
