import json

import pytest

from megatron_astro.corpus.arxiv import build_metadata_index
from megatron_astro.corpus.documents import Reading, in_categories, is_before, read_paper
from megatron_astro.corpus.papers import list_papers
from megatron_astro.corpus_records import Document


def read(path, **options):
    (paper,) = list_papers([path])
    return chosen(paper, **({"selection": "aic"} | options))


def chosen(paper, **options):
    outcome = read_paper(paper, Reading(**options))
    return outcome.document or outcome.reject


@pytest.fixture
def latex(tmp_path, source):
    def write(name="0704.0001.tex", **options):
        (tmp_path / name).write_bytes(source(**options))
        return tmp_path / name

    return write


def test_a_latex_paper(latex):
    document = read(latex())
    assert document.text == ("We study a star.\n\nIntroduction\n\nA star shines.\n\nSummary and conclusions\n\nThe star shines.")
    assert (document.id, document.title, document.date, document.num_words) == ("0704.0001", "On stars", "2007-04", 14)
    assert document.source.endswith("0704.0001.tex")
    assert [section.kind for section in document.sections] == ["abstract", "introduction", "conclusion"]


@pytest.mark.parametrize(
    ("day", "limit", "before"),
    [("2015-09-13", "2015-09-14", True), ("2015-09-14", "2015-09-14", False), ("2015-08", "2015-09-14", True),
     ("2015-09", "2015-09-30", False), ("1999-01", "2015-09-14", True),
     ("2015", "2015-12-31", False), ("2014", "2015-01-01", True)],
)  # fmt: skip
def test_dates_are_compared_with_care(day, limit, before):
    assert is_before(day, limit) is before


def test_categories():
    assert in_categories(("gr-qc", "astro-ph.HE"), ("astro-ph",))
    assert not in_categories(("astro-ph-x.HE",), ("astro-ph",))
    assert in_categories(("astro-ph.GA",), ("hep-th", "astro-ph.GA"))


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("0704.0001.tex", {"before": "2007-05-01"}, None),
        ("0704.0001.tex", {"before": "2007-04-30"}, "date"),
        ("star.tex", {"before": "2030-01-01"}, "no-date"),
        ("0704.0001.tex", {"categories": ("astro-ph",)}, "no-category"),
        ("astro-ph9901001.tex", {"categories": ("astro-ph",)}, None),
        ("astro-ph9901001.tex", {"categories": ("gr-qc",)}, "category"),
        ("star.tex", {"selection": "custom", "patterns": ("nothing",)}, "selection"),
    ],
)
def test_what_options_leave_out_is_rejected_with_its_rule(latex, name, options, rule):
    found = read(latex(name), **options)
    assert (None if isinstance(found, Document) else found.rule) == rule


def test_metadata_is_joined_by_id(tmp_path, latex):
    metadata = tmp_path / "m.jsonl"
    line = {"id": "0704.0001", "abstract": "From\nmetadata.", "categories": "astro-ph.SR", "license": "CC0",
            "versions": [{"created": "Mon, 2 Apr 2007 19:18:42 GMT"}]}  # fmt: skip
    metadata.write_text(json.dumps(line) + "\n")
    build_metadata_index(metadata, tmp_path / "index")
    joined = {"metadata": str(metadata), "index": str(tmp_path / "index")}
    path = latex()
    found = read(path, **joined)
    assert (found.date, found.categories, found.licence, found.version) == ("2007-04-02", ("astro-ph.SR",), "CC0", 1)
    assert found.text.startswith("We study")  # the paper's own abstract
    path.write_text(path.read_text().replace("abstract}", "center}"))
    assert read(path, **joined).text.startswith("From metadata.\n\nIntroduction")


def test_lines_are_documents_or_abstracts(tmp_path):
    path = tmp_path / "d.jsonl"
    sections = [{"kind": "abstract", "heading": "", "text": "We."}, {"kind": "body", "heading": "Methods", "text": "m"}]
    lines = [
        {"id": "a", "text": "whole", "sections": sections},
        {"id": "0704.0001", "title": "T\n t", "abstract": " A. \nB.", "categories": "gr-qc"},
        {"id": "c", "txt": 1},
        {"id": "d", "text": "no sections"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n")
    found = [chosen(paper, selection="abstract") for paper in list_papers([path])]
    assert [getattr(item, "text", getattr(item, "rule", "")) for item in found] == [
        "We.", "A. B.", "unreadable", "selection", "unreadable",
    ]  # fmt: skip
    assert (found[1].title, found[1].date) == ("T t", "2007-04")
    assert "line 5" in found[4].paper
    whole = chosen(list(list_papers([path]))[3], selection="full")
    assert (whole.text, whole.num_words) == ("no sections", 2)


def test_a_licence_beside_the_paper_is_its_licence(tmp_path, latex):
    (tmp_path / "LICENSE").write_text("\n  MIT License\n\nCopyright")
    assert read(latex()).licence == "MIT License"


def test_a_paper_that_cannot_be_read_is_a_reject(latex, tmp_path):
    path = tmp_path / "a.tex"
    path.write_text("no paper")
    found = read(path)
    assert (found.rule, found.paper) == ("unreadable", "a")
    assert "no file holds" in found.reason


@pytest.mark.parametrize(("day", "rule"), [("12 May 2001", "no-date"), ("2001", None), ("2016-01-01T00:00", "date")])
def test_a_lines_date_is_read_before_it_is_compared(tmp_path, day, rule):
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "a", "text": "A star.", "date": day}))
    found = read(tmp_path / "d.jsonl", selection="full", before="2015-09-14")
    assert (None if isinstance(found, Document) else found.rule) == rule
    assert rule != "no-date" or "its date '12 May 2001' cannot be compared" in found.reason


def test_an_empty_member_of_a_tar_does_not_take_the_next_papers_text(tmp_path, make_tar, make_gz, source):
    members = {"0704.0001.gz": b"", "0704.0002.gz": make_gz(source("star"))}
    (tmp_path / "m.tar").write_bytes(make_tar(members, "w"))
    first, second = (chosen(paper, selection="aic") for paper in list_papers([tmp_path / "m.tar"]))
    assert (first.rule, second.id) == ("unreadable", "0704.0002")


@pytest.mark.parametrize(("name", "version"), [("0704.0001v2.tex", 2), ("astro-ph/9901001v3.tex", 3), ("0704.0001.tex", 0)])
def test_the_version_a_name_states_is_kept(tmp_path, source, name, version):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(source())
    assert read(path).version == version
