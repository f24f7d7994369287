"""A conversion under a memory bound, and one that is killed."""

import json
import subprocess
from pathlib import Path

import pytest

MIB = 2**20
# What a process may map for data beside what it has when it starts: buffers, the threads' stacks (8 MiB each) and arenas (64 MiB each).
GROWTH = 900 * MIB
# Peaks are equal but for what the allocator keeps; the larger model's largest tensor alone is 8 times as much.
TOLERANCE = 16 * MIB

CONVERT_AND_CERTIFY = """
import json, logging, resource, sys
from pathlib import Path
from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.conversion_plan import open_checkpoint
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.memory_bound import memory_need, peak_resident_bytes
logging.disable(logging.INFO)
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
status = Path("/proc/self/status").read_text()
mapped = 1024 * int(status.split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (mapped + int(sys.argv[3]),) * 2)  # nothing more can be had, resident or not
bound = memory_need(open_checkpoint(source)).num_bytes + 2**20  # the least that is accepted, and what opening takes
there = convert(source, folder / "megatron", verification="readback", shard_bytes=50_000_000, max_ram=bound)
first = peak_resident_bytes()
back = convert(folder / "megatron", folder / "hf", verification="readback", shard_bytes=50_000_000)
roots = [certify(open_checkpoint(folder / name)).root for name in ("megatron", "hf")]
roots += [there.certificate.root, back.certificate.root]
print(json.dumps({"bound": bound, "first": first, "peak": peak_resident_bytes(), "roots": roots}))
"""


def converted(python, source, folder):
    command, environment = python
    folder.mkdir()
    done = subprocess.run(
        [*command, "-c", CONVERT_AND_CERTIFY, str(source), str(folder), str(GROWTH)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_is_the_same_whatever_the_size(save_random_llama, python, tmp_path):
    """Models of 79 MB and 383 MB; the largest tensor, the embedding, has 34 MB and 134 MB."""
    small, large = (
        save_random_llama(tmp_path / name, layers=layers, hidden=512, ffn=1408, vocabulary=vocabulary)
        for name, layers, vocabulary in (("small", 2, 2**15), ("large", 18, 2**17))
    )
    found = [converted(python, tmp_path / name, tmp_path / f"of_{name}") for name in ("small", "large")]
    assert all(len(set(model["roots"])) == 1 for model in found)
    assert all(model["first"] < model["bound"] for model in found), found
    peaks = [model["peak"] for model in found]
    assert abs(peaks[0] - peaks[1]) < TOLERANCE, [f"{peak / MIB:.1f} MiB" for peak in peaks]
    assert large - small > 10 * TOLERANCE


@pytest.mark.parametrize(("target_format", "num_kills"), [("megatron", 20), ("huggingface", 20), ("megatron-legacy", 3)])
def test_kills_at_random_instants_lose_nothing(save_random_llama, python, tmp_path, target_format, num_kills):
    save_random_llama(tmp_path / "source", layers=4, hidden=32, ffn=48)
    command, environment = python
    script = Path(__file__).parent / "kill_conversion.py"
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "source"), target_format, str(tmp_path), str(num_kills)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == num_kills
    for seen in kills:
        assert seen["killed"], seen
        assert seen["honest"], seen
        assert seen["identical"], seen
        assert seen["kept"], seen  # finished files were not written again
        assert not (seen["target"] and seen["partial"]), seen
        assert not seen["leftover"], seen
    assert num_kills < 20 or len({seen["finished"] for seen in kills}) >= 3  # the instants fall into different parts of the work
