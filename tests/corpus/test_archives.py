import gzip

import pytest

from megatron_astro.corpus import archives
from megatron_astro.corpus.archives import read_paper_archive, read_paper_folder, safe_path
from megatron_astro.errors import DataError


def test_gz_of_one_file_and_tar_of_many(make_tar, source):
    assert read_paper_archive(gzip.compress(source()), "0704.0001.gz") == {"0704.0001.tex": source()}
    files = {"ms.tex": source(), "sec/a.tex": b"a", "fig.pdf": b"%PDF", "../out.tex": b"no", "/abs.tex": b"no"}
    kept = {"ms.tex": source(), "sec/a.tex": b"a"}
    assert read_paper_archive(make_tar(files), "x.tar.gz") == kept
    assert read_paper_archive(make_tar(files, "w"), "x.tar") == kept


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "", "a\0b"])
def test_paths_that_lead_out_are_refused(name):
    assert safe_path(name) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (gzip.compress(b"%PDF-1.4", mtime=0), "it holds PDF, not LaTeX"),
        (gzip.compress(b"%!PS-Adobe", mtime=0), "PostScript"),
        (gzip.compress(b"%auto-ignore\nwithdrawn", mtime=0), "withdrawn"),
        (gzip.compress(b"x" * 100, mtime=0)[:-12], "cannot be decompressed"),
        (b"\x1f\x8bxxxx", "cannot be decompressed"),
    ],
)
def test_what_holds_no_paper_says_so(content, text):
    with pytest.raises(DataError, match=text):
        read_paper_archive(content, "a.gz")


def test_bounds(monkeypatch, make_tar, tmp_path):
    monkeypatch.setattr(archives, "MAX_PAPER_BYTES", 50_000)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 30_000)
    with pytest.raises(DataError, match="decompresses to more than 50000 bytes"):
        read_paper_archive(gzip.compress(b"x" * 50_001, mtime=0), "a.gz")
    with pytest.raises(DataError, match=r"a\.tex is larger than 30000 bytes"):
        read_paper_archive(make_tar({"a.tex": b"x" * 30_001}), "a.tar.gz")
    for name in "abc":
        (tmp_path / f"{name}.tex").write_bytes(b"x" * 20_000)
    with pytest.raises(DataError, match="50000 bytes of text"):
        read_paper_folder(tmp_path)


def test_a_damaged_tar_is_named(make_tar, source):
    whole = make_tar({"a.tex": source() * 50, "b.tex": source() * 50}, "w")
    with pytest.raises(DataError, match="its tar is damaged"):
        read_paper_archive(whole[:9000], "a.tar")


def test_a_folder_gives_its_text_files_and_follows_no_link(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.tex").write_bytes(b"a")
    (tmp_path / "f.png").write_bytes(b"p")
    (tmp_path / "l.tex").symlink_to("/etc/passwd")
    assert read_paper_folder(tmp_path) == {"sub/a.tex": b"a"}
