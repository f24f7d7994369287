"""Kill conversions at random instants and resume them: `kill_conversion.py SOURCE FORMAT FOLDER NUM_KILLS`.

Writes one JSON object a kill: what was there after it, and whether the resumed result is the undisturbed one. The process imports
PyTorch once and forks a child for every conversion.
"""

import json
import logging
import os
import random
import shutil
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path

from megatron_astro.checkpoint.conversion_plan import detect_format
from megatron_astro.checkpoint.convert import convert
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError

PAUSE_SECONDS = 0.004  # before each group: makes the writing long enough for a kill to fall into it
SHARD_BYTES = 20_000
LEGACY_LAYOUT = RankLayout(tp=2, pp=4)  # four shards of two files


def start(source, target, target_format):
    """Convert in a child; return its process id."""
    child = os.fork()
    if child == 0:
        options = {"target_format": target_format, "verification": "readback", "shard_bytes": SHARD_BYTES}
        if target_format == "megatron-legacy":
            options["layout"] = LEGACY_LAYOUT
        convert(source, target, before_group=lambda _: time.sleep(PAUSE_SECONDS), **options)
        os._exit(0)
    return child


def contents(folder):
    """Name -> SHA-256 of every file; of the certificate without when and by which command it was made."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(_lasting(path)).hexdigest() for path in files}


def _lasting(path):
    if path.name != "certificate.json":
        return path.read_bytes()
    return json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "provenance"}).encode()


def finished_files(partial):
    """Name -> inode of the files that the journal calls finished."""
    journal = partial / "conversion.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.is_file() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
    names = [file["file"] for line in whole if "shard" in line for file in line["shard"]["files"]]
    return {name: (partial / name).stat().st_ino for name in names}


def says_it_is_incomplete(partial):
    """The folder is refused as a source, unless all that was left to do is to rename it."""
    try:
        detect_format(partial)
    except CheckpointError as error:
        return "unfinished" in str(error) or "is no checkpoint" in str(error)
    return '"complete": true' in (partial / "conversion.jsonl").read_text()


def kill_once(source, target, target_format, delay):
    """One conversion killed after `delay` seconds, and one that resumes it."""
    child = start(source, target, target_format)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    partial = target.with_name(target.name + ".partial")
    finished = finished_files(partial)
    honest = not partial.exists() or says_it_is_incomplete(partial)
    seen = {"killed": killed, "target": target.exists(), "partial": partial.exists(), "honest": honest, "finished": len(finished)}
    seen["kept"] = True
    if not seen["target"]:
        status = os.waitpid(start(source, target, target_format), 0)[1]
        seen["resumed"] = os.waitstatus_to_exitcode(status) == 0
        seen["kept"] = all((target / name).stat().st_ino == inode for name, inode in finished.items())
    return seen


def main(source, target_format, folder, num_kills):
    logging.disable(logging.INFO)
    began = time.monotonic()
    assert os.waitpid(start(source, folder / "whole", target_format), 0)[1] == 0
    seconds = time.monotonic() - began
    wanted = contents(folder / "whole")
    instants = random.Random(20240929)
    for number in range(num_kills):
        target = folder / f"target{number}"
        delay = instants.uniform(0, seconds)
        while not (seen := kill_once(source, target, target_format, delay))["killed"]:  # it was quicker than the first
            shutil.rmtree(target)
            delay /= 2
        seen["identical"] = contents(target) == wanted
        seen["leftover"] = target.with_name(target.name + ".partial").exists()
        sys.stdout.write(json.dumps(seen) + "\n")
        shutil.rmtree(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
