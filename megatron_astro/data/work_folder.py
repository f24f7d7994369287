"""The work folder of a tokenisation, PREFIX.work: what a stopped run leaves to the one that goes on with it.

plan.json     what its parts are made of and how (`tokenize_plan`)
part_*        finished parts (`tokenize_part`)
merged.*      files of the dataset while they are written
publishing    there from the moment those take their places: what stands in these is this command's own from then on

One process at a time holds it; what a killed one left half-written is removed by the next.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_astro.data.dataset_files import PUBLISHING, dataset_files
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.merge_parts import RejectedLine
from megatron_astro.data.tokenize_plan import Plan, differences
from megatron_astro.data.tokenize_request import TokenizeRequest
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import held_folder, make_folder
from megatron_astro.records import read_lines, read_record, write_record

FINISHED = "part_*.json"


def rejects_file(prefix: Path) -> Path:
    """Where malformed lines are listed."""
    return dataset_file(prefix, "rejects.jsonl")


@contextmanager
def held_work(request: TokenizeRequest) -> Iterator[Path]:
    """The work folder, made and held against other runs; it goes when the block ends well or no part is finished.

    Raises
    ------
    ConfigError
        A file of the dataset is there already, the folder is somebody else's, or another run holds it.
    """
    folder = dataset_file(request.prefix, "work")
    require_free(request)
    if folder.is_dir() and not _is_ours(folder):
        raise ConfigError(f"{folder} exists and is no work folder of this command; name another output or remove it")
    make_folder(folder)
    with held_folder(folder, "output"):
        try:
            require_free(request)  # a run that ended just now may have written it
            yield folder
            shutil.rmtree(folder)
        finally:
            if not any(folder.glob(FINISHED)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return (folder / "plan.json").exists() or all(path.suffix == ".partial" for path in folder.iterdir())


def require_free(request: TokenizeRequest) -> None:
    """ConfigError where a file that would be written is there already, unless a killed run of this command put it there."""
    prefix = request.prefix
    make_folder(prefix.parent)
    files = [*dataset_files(prefix, loss_mask=True), dataset_file(prefix, "json")]
    for path in [*files, rejects_file(prefix)]:
        if any(path.exists() and source.exists() and path.samefile(source) for source in request.inputs):
            raise ConfigError(f"{path} is read by this command; name another output")
    idx, folder = files[0], dataset_file(prefix, "work")
    begun = (folder / PUBLISHING).exists()
    if os.path.lexists(idx):
        if begun:  # killed after its last file
            with held_folder(folder, "output"):
                shutil.rmtree(folder)
        raise ConfigError(f"{idx} exists already; name another output or remove the dataset first")
    for path in [] if begun else files[1:]:
        if os.path.lexists(path):
            raise ConfigError(
                f"{path} exists already and would be overwritten, or taken for the new dataset's; name another output or move it away"
            )
    _require_own_rejects(rejects_file(prefix))


def _require_own_rejects(path: Path) -> None:
    if not os.path.lexists(path):
        return
    try:
        for _ in read_lines(path, RejectedLine):
            pass
    except DataError as error:
        raise ConfigError(
            f"{path} exists and is no list of rejected lines; it would be overwritten: name another output or move it away"
        ) from error


def claim(folder: Path, plan: Plan) -> None:
    """Keep the finished parts of the same plan; ConfigError names what differs in another. Remove what is half-written."""
    path = folder / "plan.json"
    if any(folder.glob(FINISHED)):
        try:
            changed = differences(read_record(path, Plan), plan)
        except DataError as error:
            raise ConfigError(
                f"{folder} holds parts that another version of this command made; remove it to start afresh, or name another output"
            ) from error
        if changed:
            raise ConfigError(
                f"{folder} was begun with another {', another '.join(changed)}; go on as it was begun, remove that folder to start "
                "afresh, or name another output"
            )
    else:
        _remove(folder, "part_*")
    _remove(folder, "*.partial")
    _remove(folder, "merged.*")
    write_record(path, plan)


def _remove(folder: Path, pattern: str) -> None:
    for stale in folder.glob(pattern):
        stale.unlink()
