from pathlib import PurePosixPath

import pytest

from megatron_astro.corpus.papers import list_papers, paper_id
from megatron_astro.errors import ConfigError, DataError


def listed(*inputs):
    return [(paper.name, paper.kind) for paper in list_papers(list(inputs))]


def test_a_folder_with_a_main_file_is_one_paper_and_others_hold_papers(tmp_path, source):
    for name in (
        "b/ms.tex",
        "b/old.tex",
        "a/x/paper.md",
        "c/README.md",
        "c/LICENSE",
        "c/note.txt",
        ".git/x.txt",
        "c/0704.0001.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source())
    assert listed(tmp_path) == [("x", "markdown"), ("b", "folder"), ("0704.0001", "archive"), ("note", "text")]
    assert listed(tmp_path / "b" / "old.tex") == [("old", "latex")]


def test_a_folder_of_main_files_named_by_ids_is_many_papers(tmp_path, source):
    for name in ("0704.0001.tex", "0704.0002.tex"):
        (tmp_path / name).write_bytes(source())
    assert listed(tmp_path) == [("0704.0001", "latex"), ("0704.0002", "latex")]


def test_lines_and_members(tmp_path, make_tar, make_gz, source):
    (tmp_path / "d.jsonl").write_bytes(b'{"a": 1}\n\n{"b": 2}\n')
    (tmp_path / "m.tar").write_bytes(make_tar({"9901/astro-ph9901001.gz": make_gz(source()), "9901/x.pdf": b"%PDF"}, "w"))
    (tmp_path / "one.tar").write_bytes(make_tar({"ms.tex": source()}, "w"))
    papers = list(list_papers([tmp_path / "d.jsonl", tmp_path / "m.tar", tmp_path / "one.tar"]))
    assert [(paper.kind, paper.place, paper.num_bytes) for paper in papers[:2]] == [("line", 0, 9), ("line", 10, 9)]
    assert [paper.name for paper in papers[2:]] == ["astro-ph/9901001", "x", "one"]
    assert papers[2].source.endswith("m.tar/9901/astro-ph9901001.gz")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/2401.01916v2.tar.gz", "2401.01916"),
        ("astro-ph/9901001.gz", "astro-ph/9901001"),
        ("x/emcee/ms.tex", "emcee"),
        ("x/2013PASP..125..306F.tex", "2013PASP..125..306F"),
        ("x/01_universe.txt", "01_universe"),
        ("x/0704.0001/paper.tex", "0704.0001"),
    ],
)
def test_ids(path, name):
    assert paper_id(PurePosixPath(path)) == name


def test_bad_inputs_are_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        listed(tmp_path / "none")
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"ends in '\.pdf'"):
        listed(tmp_path / "a.pdf")
    (tmp_path / "a.tar").write_bytes(b"x" * 600)
    with pytest.raises(DataError, match="its tar is damaged"):
        listed(tmp_path / "a.tar")
