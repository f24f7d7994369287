"""Writing files so that a reader never sees half of one: temporary name, fsync, rename."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_astro.errors import ConfigError

REMEDIES = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EACCES: "give yourself access to it",
    errno.EPERM: "give yourself access to it",
    errno.EROFS: "have the file system mounted for writing",
    errno.EIO: "check the disk, or the network it is reached by",
    errno.ESTALE: "check the network file system",
    errno.ENOENT: "it was there before: see what removed it",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def fault_and_remedy(error: OSError, where: Path) -> str:
    """What the system refused, at which path (`where`, if the error names none), and what helps, as words of a sentence."""
    remedy = REMEDIES.get(error.errno or 0, "see what is in the way there")
    return f"{error.strerror or error} ({error.filename or where}); {remedy}"


def fsync_path(path: Path) -> None:
    """Flush a file's or a folder's own entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file below a folder, then the folders, deepest first."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_path(Path(root, name))
        fsync_path(Path(root))


@contextmanager
def held_folder(folder: Path, instead: str) -> Iterator[None]:
    """Hold a folder for this process alone, a kill releases it; ConfigError, with what to name `instead`, where another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
                raise BlockingIOError(f"{folder} is no longer there")  # who held it removed or renamed it just now
        except BlockingIOError as error:
            raise ConfigError(f"{folder} is being written by another process; wait for it, or name another {instead}") from error
        yield
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file at once; a kill or a full disk leaves the old file or none, never half of one."""
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write to; rename it over `path` when the block ends well."""
    require_writable_file(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        fsync_path(partial)
        partial.replace(path)
        fsync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it when the block ends well. `folder` must not exist."""
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another target or remove it first")
    make_folder(folder.parent)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        yield partial
        fsync_tree(partial)
        partial.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, or say in one sentence why it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the folder {folder}: {error.strerror}; name a folder you may write to") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"cannot write to the folder {folder}: permission denied; name a folder you may write to")


def require_writable_file(path: Path, *inputs: Path | None) -> None:
    """Check, before long work, that a file can be written there and is none of `inputs`: its folder is made if need be."""
    make_folder(path.parent)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file to write")
    if path.exists() and not path.is_file():  # a device or a pipe, which the rename would replace
        raise ConfigError(f"{path} exists and is not a plain file; name another file to write")
    for source in inputs:
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise ConfigError(f"{path} is read by this command; name another file to write")
