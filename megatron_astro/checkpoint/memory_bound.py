"""How much memory a conversion takes, told before it starts: the program itself, and the blocks of tensors that are on their way.

All figures are resident bytes of the whole process (what `VmHWM` in /proc/self/status shows): Python and PyTorch take about 0.3 GB of
them before any weight is read. Pages of the file cache, which the system drops when it needs to, are not among them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from megatron_astro.checkpoint.reader import BLOCK_BYTES, WeightReader
from megatron_astro.checkpoint.transfer import BUFFERS_A_THREAD, copying_threads
from megatron_astro.errors import ConfigError

DEFAULT_MAX_RAM = 4 * 2**30

# What the program grows by beside the weights: modules loaded late, buffers, and freed blocks that the allocator keeps (glibc keeps
# those up to 32 MiB). Measured: up to 30 MB.
WORKING_BYTES = 128 * 2**20
# The logits check loads transformers and megatron-core, and a model in float32 beside what it is loaded from. Measured: 567 MiB where
# these figures say 870 (25 million parameters), 3546 where they say 4000 (273 million).
LOGITS_LIBRARY_BYTES = 600 * 10**6
LOGITS_COPIES = 3

UNITS = {"": 1, "B": 1, **{f"{unit}{i}B": (1024 if i else 1000) ** p for p, unit in enumerate("KMGT", 1) for i in ("", "i")}}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Resident bytes: what the process has already, its own growth, and what each thread holds; none of it depends on the model's size."""

    program_bytes: int
    num_threads: int
    thread_bytes: int

    @property
    def num_bytes(self) -> int:
        """The expected peak."""
        return self.program_bytes + WORKING_BYTES + self.num_threads * self.thread_bytes


def parse_size(text: str, option: str) -> int:
    """Bytes of a size such as 4GiB, 500MB or 1000000; ConfigError names the option."""
    found = SIZE.fullmatch(text.strip())
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if not found or found[2].lower() not in units:
        raise ConfigError(f"{option} is {text!r}; give a number with a unit: B, KB, MB, GB, TB or KiB, MiB, GiB, TiB, as in 4GiB")
    return int(float(found[1]) * units[found[2].lower()])


def memory_need(reader: WeightReader) -> MemoryNeed:
    """What reading, rounding, hashing, writing and reading back takes."""
    return MemoryNeed(
        program_bytes=psutil.Process().memory_info().rss,
        num_threads=copying_threads(),
        thread_bytes=BUFFERS_A_THREAD * BLOCK_BYTES + reader.scratch_bytes(),
    )


def require_within(need: MemoryNeed, max_ram: int) -> None:
    """ConfigError when the bound is too small for the program and its threads."""
    if need.num_bytes > max_ram:
        raise ConfigError(
            f"max_ram is {max_ram} bytes, but {need.num_bytes} are needed: {need.program_bytes + WORKING_BYTES} for the program and "
            f"{need.thread_bytes} for each of {need.num_threads} threads, whatever the model's size; "
            f"raise max_ram to at least {-(-need.num_bytes // 2**20)}MiB"
        )


def logits_check_bytes(num_parameters: int) -> int:
    """Expected peak of comparing logits: one float32 model at a time, and what it is loaded from."""
    return psutil.Process().memory_info().rss + LOGITS_LIBRARY_BYTES + LOGITS_COPIES * 4 * num_parameters


def peak_resident_bytes() -> int:
    """The most this process has had in memory so far."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
