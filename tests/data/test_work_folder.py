import signal
import subprocess
import sys

import pytest

from megatron_astro.data import dataset_files
from megatron_astro.data.indexed import dataset_file
from megatron_astro.data.tokenize import write_dataset
from megatron_astro.data.work_folder import held_work
from megatron_astro.errors import ConfigError, DataError
from megatron_astro.files import held_folder


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "out" / "data"


def names(prefix):
    return sorted(path.name for path in prefix.parent.iterdir())


def test_existing_dataset_is_kept(request_for, prefix, bytes_of):
    write_dataset(request_for())
    before = bytes_of(prefix)
    with pytest.raises(ConfigError, match=r"data\.idx exists already; name another output or remove"):
        write_dataset(request_for(shuffle_seed=1))
    assert bytes_of(prefix) == before


@pytest.mark.parametrize("name", ["data.bin", "data.ids", "data.json", "data_mask.idx", "data_mask.bin"])
def test_files_of_another_are_kept(request_for, prefix, name):
    """They were overwritten, or, where the run failed, removed."""
    prefix.parent.mkdir()
    (prefix.parent / name).write_text("years of work")
    for conversations in (False, True):  # a mask would be taken for that of the documents
        with pytest.raises(ConfigError, match=rf"{name} exists already and would be overwritten, or taken for the new dataset's"):
            write_dataset(request_for(conversations=conversations))
    assert names(prefix) == [name]


def test_a_broken_link_is_not_replaced(request_for, prefix):
    prefix.parent.mkdir()
    prefix.with_name("data.bin").symlink_to("not-mounted-now")
    with pytest.raises(ConfigError, match=r"data\.bin exists already"):
        write_dataset(request_for())


def test_inputs_and_lists_that_are_not_ours_are_kept(request_for, prefix):
    prefix.parent.mkdir()
    papers = prefix.with_name("data.rejects.jsonl")
    papers.write_text('{"id": "a", "text": "years of work"}\n')
    with pytest.raises(ConfigError, match=r"data\.rejects\.jsonl exists and is no list of rejected lines"):
        write_dataset(request_for())
    with pytest.raises(ConfigError, match=r"data\.rejects\.jsonl is read by this command"):
        write_dataset(request_for(inputs=(papers,)))
    assert papers.read_text() == '{"id": "a", "text": "years of work"}\n'


def test_a_folder_that_is_not_ours_is_kept(request_for, prefix):
    work = dataset_file(prefix, "work")
    work.mkdir(parents=True)
    (work / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"data\.work exists and is no work folder of this command"):
        write_dataset(request_for())
    assert (work / "thesis.txt").exists()


@pytest.mark.parametrize("last", ["data.ids", "data.idx", "data.work"])
def test_a_run_killed_between_its_files_can_be_repeated(request_for, prefix, bytes_of, last, tmp_path):
    """The next run removes what is left and, where there is no dataset yet, ends in the same bytes."""
    write_dataset(request_for(prefix=tmp_path / "whole"))
    program = (
        "import os, pathlib, sys\n"
        "from megatron_astro.data import dataset_files, tokenize, tokenize_request\n"
        "flush, last = dataset_files.fsync_path, pathlib.Path(sys.argv[4])\n"
        "def kill(path):\n"
        "    flush(path)\n"
        "    if last.exists(): os.kill(os.getpid(), 9)\n"
        "dataset_files.fsync_path = kill\n"
        "inputs, tokenizer, prefix = map(pathlib.Path, sys.argv[1:4])\n"
        "tokenize.write_dataset(tokenize_request.TokenizeRequest(inputs=(inputs,), tokenizer=tokenizer, prefix=prefix))\n"
    )
    request = request_for()
    arguments = [*request.inputs, request.tokenizer, prefix, prefix.with_name(last)]
    assert subprocess.run([sys.executable, "-c", program, *arguments], check=False).returncode == -signal.SIGKILL
    assert "data.work" in names(prefix)
    if last == "data.idx":
        with pytest.raises(ConfigError, match=r"data\.idx exists already"):
            write_dataset(request)
    else:
        write_dataset(request)
    assert bytes_of(prefix) == bytes_of(tmp_path / "whole")
    assert names(prefix) == ["data.bin", "data.ids", "data.idx", "data.json"]


def test_two_runs_of_one_output_do_not_mix(request_for, prefix):
    with held_work(request_for()), pytest.raises(ConfigError, match=r"data\.work is being written by another process; wait"):
        write_dataset(request_for())
    assert names(prefix) == []


def test_a_run_that_waited_for_the_end_of_another_does_not_write_over_its_dataset(request_for, prefix, bytes_of, monkeypatch):
    """Between the look for a dataset and the lock another run wrote one."""
    from megatron_astro.data import work_folder

    def write_meanwhile(folder, instead):
        monkeypatch.setattr(work_folder, "held_folder", held_folder)
        write_dataset(request_for())
        folder.mkdir()
        return held_folder(folder, instead)

    monkeypatch.setattr(work_folder, "held_folder", write_meanwhile)
    with pytest.raises(ConfigError, match=r"data\.idx exists already"):
        write_dataset(request_for(shuffle_seed=1))
    assert names(prefix) == ["data.bin", "data.ids", "data.idx", "data.json"]


def test_a_run_without_a_finished_part_leaves_nothing(request_for, corpus, prefix):
    broken = corpus.with_suffix(".jsonl.gz")
    broken.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match=r"cannot read .*corpus\.jsonl\.gz: "):
        write_dataset(request_for(inputs=(broken,)))
    assert names(prefix) == []


def test_a_full_disk_leaves_no_half_of_a_dataset_and_the_next_run_goes_on(
    request_for, prefix, bytes_of, monkeypatch, tmp_path, caplog
):
    write_dataset(request_for(prefix=tmp_path / "whole"))
    caplog.clear()

    def fill(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(dataset_files.MergedParts, "write_names", fill)
        with pytest.raises(
            DataError,
            match=r"data could not be finished: No space left on device \(.*\); free the disk, then run the command again",
        ):
            write_dataset(request_for())
    assert names(prefix) == ["data.work"]
    assert not list(dataset_file(prefix, "work").glob("merged.*"))
    with caplog.at_level("INFO"):
        write_dataset(request_for())
    assert "going on with" in caplog.text
    assert bytes_of(prefix) == bytes_of(tmp_path / "whole")
