"""Under what a record is made: versions, command, time; and the digests that tie a record to its inputs."""

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from megatron_astro.records import Provenance

REPORTED_PACKAGES = ("megatron_astro", "torch", "megatron-core", "transformers", "tokenizers", "safetensors", "numpy")


def current_provenance() -> Provenance:
    """Describe this process: its command line, the time now, the installed versions, the source's git commit if any."""
    versions = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(command=command, created=now, versions=versions, commit=_git_commit())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def combined_sha256(digests: Sequence[str]) -> str:
    """One digest for several files in order: that of the only file, or SHA-256 over their hexadecimal digests, one a line."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the names and bytes of a Hugging Face folder's weight files, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _git_commit() -> str:
    """The commit of the checkout this package runs from, with `-dirty` if changed; empty outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
