import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_astro.corpus.build import build_corpus
from megatron_astro.corpus.build_plan import Build
from megatron_astro.corpus.documents import Reading
from megatron_astro.corpus.workers import Bounds
from megatron_astro.corpus_records import CorpusRecord, Document, Reject
from megatron_astro.errors import ConfigError
from megatron_astro.records import read_lines, read_record

TOOL = Path(__file__).parents[2] / "tools" / "build_corpus.py"


@pytest.fixture
def papers(tmp_path, source):
    """150 papers (three batches), two of them without LaTeX and two of one id."""
    folder = tmp_path / "papers"
    folder.mkdir()
    for number in range(148):
        (folder / f"0704.{number:04}.tex").write_bytes(source(f"star{number}") if number % 70 != 3 else b"no")
    (folder / "z").mkdir()
    (folder / "z" / "0704.0000.tex").write_bytes(b"x")
    (folder / "z" / "0704.0001.md").write_bytes(b"# Summary\nTwice.\n# Methods\nx")
    return folder


def make(papers, output, **options):
    bounds = Bounds(seconds=60.0, memory_bytes=2**30)
    settings = {"inputs": (papers,), "reading": Reading(selection="aic"), "bounds": bounds, "num_workers": 1} | options
    return Build(output=output, **settings)


def test_every_paper_once_whatever_the_workers(tmp_path, papers):
    one = build_corpus(make(papers, tmp_path / "one"))
    two = build_corpus(make(papers, tmp_path / "two", num_workers=2))
    assert one.documents_sha256 == two.documents_sha256
    documents = list(read_lines(tmp_path / "one" / "documents.jsonl", Document))
    rejects = list(read_lines(tmp_path / "one" / "rejects.jsonl", Reject))
    assert [document.id for document in documents] == [f"0704.{i:04}" for i in range(148) if i % 70 != 3]
    assert [(reject.paper, reject.rule) for reject in rejects] == [
        ("0704.0003", "unreadable"), ("0704.0073", "unreadable"), ("0704.0143", "unreadable"),
        ("0704.0000", "unreadable"), ("0704.0001", "same-id"),
    ]  # fmt: skip
    assert read_record(tmp_path / "one" / "report.json", CorpusRecord) == one
    assert (one.num_papers, one.num_documents, one.num_rejects) == (150, 145, 5)
    assert one.section_kinds == {"abstract": 145, "conclusion": 145, "introduction": 145}
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["documents.jsonl", "rejects.jsonl", "report.json"]


def test_missing_input_files_are_counted(tmp_path, source):
    papers = tmp_path / "papers"
    papers.mkdir()
    for number, calls in enumerate((b"", b"\\input{one}\\input{two.tex}\\input{one}", b"\\include{three}")):
        whole = source(f"star{number}")
        (papers / f"0704.{number:04}.tex").write_bytes(whole.replace(b"\\end{document}", calls + b"\\end{document}"))
    record = build_corpus(make(papers, tmp_path / "out"))
    assert (record.num_documents, record.num_missing_files, record.num_incomplete_documents) == (3, 3, 2)
    assert "; 3 files missing in 2 of the documents; 0 rejects." in record.summary()


def test_a_killed_build_goes_on_and_gives_the_same(tmp_path, papers):
    whole = build_corpus(make(papers, tmp_path / "whole"))
    output = tmp_path / "out"
    command = [sys.executable, str(TOOL), str(papers), "--output", str(output), "--workers", "1", "--memory-a-paper", "1024"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = output / "parts"
    while process.poll() is None and not (parts.is_dir() and any(path.stat().st_size for path in parts.glob("0*.partial"))):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for journal in parts.glob("0*.partial"):
        with journal.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # until the orphaned worker has seen that its parent is gone
            if journal.exists():
                stream.write(b'{"document": {"id": "ha')  # as a kill in the middle of a write leaves it
    with pytest.raises(ConfigError, match="begun with other options"):
        build_corpus(make(papers, output, reading=Reading(selection="full")))
    again = build_corpus(make(papers, output))
    assert again.documents_sha256 == whole.documents_sha256
    with pytest.raises(ConfigError, match="holds a finished corpus"):
        build_corpus(make(papers, output))


def test_changed_inputs_are_noticed(tmp_path, papers, monkeypatch):
    build = make(papers, tmp_path / "out")
    monkeypatch.setattr("megatron_astro.corpus.build._gather", lambda *_: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(RuntimeError):
        build_corpus(build)
    (papers / "0704.0005.tex").write_bytes((papers / "0704.0005.tex").read_bytes().replace(b"s", b"z"))  # as long as before
    with pytest.raises(ConfigError, match="the inputs have changed"):
        build_corpus(build)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"reading": Reading(selection="custom")}, "needs patterns"),
        ({"reading": Reading(selection="custom", patterns=("(",))}, "is no regular expression"),
        ({"reading": Reading(selection="aic", patterns=("method",))}, "--sections is for --selection custom"),
        ({"inputs": ()}, "no papers are named"),
        ({"reading": Reading(selection="aic", before="yesterday")}, "is no date"),
        ({"reading": Reading(selection="aic", metadata="/nowhere/m.jsonl")}, "does not exist"),
        ({"reading": Reading(selection="aic", before="2015-02-30")}, "is no date"),
        (
            {"bounds": Bounds(seconds=float("nan"), memory_bytes=1)},
            "nan s and 1 bytes a paper with 1 workers: give --seconds-a-paper",
        ),
        ({"bounds": Bounds(seconds=1, memory_bytes=-1)}, "-1 bytes"),
        ({"num_workers": -2}, "-2 workers"),
    ],
)
def test_bad_options_are_named(tmp_path, papers, options, text):
    with pytest.raises(ConfigError, match=text):
        build_corpus(make(papers, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_an_output_in_an_input_is_refused(papers):
    with pytest.raises(ConfigError, match=r"lies in the input .* which would be read again"):
        build_corpus(make(papers, papers / "out"))


def test_no_papers_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no papers in"):
        build_corpus(make(tmp_path / "empty", tmp_path / "out"))


def test_files_of_others_are_left_alone(tmp_path, source):
    (tmp_path / "ms.tex").write_bytes(source())
    thesis = tmp_path / "out/parts/thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    with pytest.raises(ConfigError, match="out holds other files, which would be overwritten or removed"):
        build_corpus(make(tmp_path / "ms.tex", tmp_path / "out"))
    assert thesis.read_text() == "mine"


def test_a_name_that_is_not_utf8_is_a_reject(tmp_path, source):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "star").mkdir()
    for name in (b"star/ms.tex", b"star/n\xffme.tex", b"n\xffme.txt"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(source() if b"ms" in name else b"x")
    assert build_corpus(make(folder, tmp_path / "out")).num_documents == 1
    (reject,) = read_lines(tmp_path / "out" / "rejects.jsonl", Reject)
    assert (reject.paper, reject.reason) == (f"{folder}/n\\xffme.txt", "its name is not UTF-8; rename that file")


def test_the_newest_version_of_a_paper_stays(tmp_path, source):
    folder = tmp_path / "papers"
    folder.mkdir()
    for number, name in enumerate(("0704.0001v1", "0704.0001v3", "0704.0001v2", "0704.0002")):
        (folder / f"{name}.tex").write_bytes(source(f"star{number}"))
    record = build_corpus(make(folder, tmp_path / "out"))
    kept = [(document.id, document.version) for document in read_lines(tmp_path / "out" / "documents.jsonl", Document)]
    assert kept == [("0704.0001", 3), ("0704.0002", 0)]
    assert record.rejects == {"older-version": 2}
    reasons = [reject.reason for reject in read_lines(tmp_path / "out" / "rejects.jsonl", Reject)]
    assert reasons == [f"version {number}; {folder}/0704.0001v3.tex is version 3 and stays" for number in (1, 2)]


def test_bulk_archives_and_time_slices(tmp_path, make_tar, make_gz, source):
    members = {f"0704/0704.{i:04}.gz": make_gz(source(f"star{i}")) for i in range(3)}
    members["0704/0704.0003.gz"] = make_tar({"ms.tex": source("galaxy")})
    members["0704/0704.0004.pdf"] = b"%PDF-1.4"
    (tmp_path / "arXiv_src_0704_001.tar").write_bytes(make_tar(members, "w"))
    metadata = tmp_path / "m.jsonl"
    lines = [{"id": f"0704.000{i}", "categories": "astro-ph.GA", "versions": [{"created": f"Mon, {i + 1} Apr 2007 19:18:42 GMT"}]}
             for i in (0, 2, 3)]  # fmt: skip
    metadata.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reading = Reading(selection="aic", before="2007-04-03", metadata=str(metadata), categories=("astro-ph",))
    record = build_corpus(make(tmp_path / "arXiv_src_0704_001.tar", tmp_path / "out", reading=reading))
    assert [document.id for document in read_lines(tmp_path / "out" / "documents.jsonl", Document)] == ["0704.0000"]
    assert record.rejects == {"date": 3, "unreadable": 1}
