import os
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
    assert listed(tmp_path) == [
        ("x", "markdown"), ("b", "folder"), ("old", "refused"), ("0704.0001", "archive"), ("note", "text"),
    ]  # fmt: skip
    assert listed(tmp_path / "b" / "old.tex") == [("old", "latex")]


def test_a_folder_of_main_files_named_by_ids_is_many_papers(tmp_path, source):
    for name in ("0704.0001.tex", "0704.0002.tex"):
        (tmp_path / name).write_bytes(source())
    assert listed(tmp_path) == [("0704.0001", "latex"), ("0704.0002", "latex")]


def write_files(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "others",
    [
        {"jones.tex": None},  # two whole papers, neither of a usual name
        {"0704.0002.tar.gz": b"x"},
        {"2013PASP..125..306F/paper.md": b"# Summary"},
    ],
)
def test_a_lone_main_file_does_not_swallow_other_papers(tmp_path, source, others):
    write_files(tmp_path, **{"smith.tex": source(), "0704.0003.pdf": b"%PDF"})
    write_files(tmp_path, **{name: content or source() for name, content in others.items()})
    assert ("smith", "latex") in listed(tmp_path)
    assert len(listed(tmp_path)) == 3  # the PDF is refused
    (refused,) = [paper for paper in list_papers([tmp_path]) if paper.kind == "refused"]
    assert (refused.name, refused.rule) == ("0704.0003", "format")


def test_what_lies_in_a_papers_folder_and_is_no_part_of_it_is_refused(tmp_path, source):
    part = b"\\section{Methods} We look."
    own = {"ms.tex": source(), "sections/methods.tex": part, "figure.ps.gz": b"x", "table.txt": b"1 2", "README.md": b"x"}
    others = {"notes.md": b"x", "more/one.jsonl": b"{}", "reply/reply.tex": source(), "data.tar.gz": b"x"}
    write_files(tmp_path / "work", **own, **others)
    papers = list(list_papers([tmp_path]))
    assert (papers[0].name, papers[0].kind) == ("work", "folder")
    assert [(paper.name, paper.rule) for paper in papers[1:]] == [
        ("data", "inside-paper"), ("more", "inside-paper"), ("notes", "inside-paper"), ("reply", "inside-paper"),
    ]  # fmt: skip
    assert (
        papers[1].reason
        == f"it lies in the folder of another paper ({tmp_path}/work/ms.tex) and is not read; name it as an input, or move it"
    )


def test_names_that_only_start_like_a_readme_are_papers(tmp_path):
    for name in (
        "sources-of-light.txt",
        "licensed_stars.md",
        "00README.txt",
        "LICENSE-MIT.txt",
        "sources.txt",
        "readme_first.txt",
    ):
        (tmp_path / name).write_text("x")
    assert [name for name, _ in listed(tmp_path)] == ["licensed_stars", "sources-of-light"]


def test_one_bad_file_in_a_folder_is_a_reject(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 600)
    (tmp_path / "b.jsonl.gz").write_bytes(b"x")
    os.mkfifo(tmp_path / "c.tex")
    (tmp_path / "d.tex").symlink_to(tmp_path / "nowhere")
    (tmp_path / "e.txt").write_text("x")
    (tmp_path / "f").symlink_to(tmp_path)
    (tmp_path / "g.txt").symlink_to(tmp_path / "e.txt")
    found = {paper.name: paper.rule or paper.kind for paper in list_papers([tmp_path])}
    assert found == {
        "a": "unreadable",
        "b.jsonl": "format",
        "c": "unreadable",
        "d": "unreadable",
        "e": "text",
        "f": "link",
        "g": "text",
    }
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        listed(tmp_path / "c.tex")
    with pytest.raises(ConfigError, match="decompress it and name what it holds"):
        listed(tmp_path / "b.jsonl.gz")


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
