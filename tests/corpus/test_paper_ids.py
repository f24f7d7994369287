import pytest

from megatron_astro.corpus.paper_ids import paper_key, paper_version, read_papers, source_papers
from megatron_astro.corpus_records import Document
from megatron_astro.errors import DataError
from megatron_astro.records import Question


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        ("2401.01234v3", "2401.01234"),
        ("arXiv:2401.01234", "2401.01234"),
        ("https://arxiv.org/abs/2401.01234v1", "2401.01234"),
        ("http://export.arxiv.org/pdf/astro-ph/0601001v2.pdf", "astro-ph/0601001"),
        ("astro-ph.CO/0601001v2", "astro-ph/0601001"),
        ("Astro-Ph/0601001", "astro-ph/0601001"),
        ("arXiv:1234.56789v2 [astro-ph.CO]", "1234.56789"),
        ("arXiv:astro-ph/0601001 [astro-ph] 3 Jan 2006", "astro-ph/0601001"),
        ("https://arxiv.org/pdf/2401.01234v2.pdf?context=astro-ph", "2401.01234"),
        ("https://arxiv.org/pdf/2401.01234/", "2401.01234"),
        ("arxiv.org/abs/2401.01234#section", "2401.01234"),
        ("https://ar5iv.labs.arxiv.org/html/2401.01234", "2401.01234"),
        ("2401.01234.pdf", "2401.01234"),
        ("10.48550/arXiv.2401.01234", "2401.01234"),
        ("https://doi.org/10.48550/arXiv.astro-ph/0601001", "astro-ph/0601001"),
        ("doi:10.48550/ARXIV.2401.01234", "2401.01234"),
        ("https://ui.adsabs.harvard.edu/abs/2024arXiv240101234S/abstract", "2401.01234"),
        ("2010arXiv1001.1234S", "1001.1234"),
        ("1996ARA&A..34..645S", "1996ARA&A..34..645S"),
        ("https://ui.adsabs.harvard.edu/abs/1996ARA%26A..34..645S/abstract", "1996ARA&A..34..645S"),
        ("https://doi.org/10.1051/0004-6361/201833910", "10.1051/0004-6361/201833910"),
        ("wiki.en/0601001v2", "wiki.en/0601001v2"),
        ("Web-A", "Web-A"),
        ("joss-stingray-v1", "joss-stingray-v1"),
        ("notes_v2", "notes_v2"),
    ],
)
def test_versions_and_spellings_of_a_paper_share_a_key(identifier, key):
    assert paper_key(identifier) == key


def test_the_version_is_the_recorded_one_else_the_ids():
    assert paper_version(Document(id="2401.01234v3", text="")) == 3
    assert paper_version(Document(id="2401.01234v3", text="", version=4)) == 4
    assert paper_version(Document(id="arXiv:astro-ph.CO/0601001v2 [astro-ph]", text="")) == 2
    assert paper_version(Document(id="notes_v2", text="")) == 0


def test_source_papers_come_from_questions_and_the_list():
    question = Question(id="q1", question="?", options=("a", "b", "c", "d"), answer="A", source="arXiv:2401.01234v1")
    assert source_papers([question], ["1996ARA&A..34..645S", " "]) == {
        "1996ARA&A..34..645S": "listed among the exam's papers",
        "2401.01234": "source of question q1",
    }


def test_a_list_of_papers_may_have_comments_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "papers.txt"
    path.write_bytes(
        b"\xef\xbb\xbf2401.01234v1  # a review\n\n# others\n1996ARA&A..34..645S\r\nhttps://arxiv.org/abs/2401.00005#S1\n"
    )
    assert read_papers(path) == ["2401.01234v1", "1996ARA&A..34..645S", "https://arxiv.org/abs/2401.00005#S1"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"2401.01234\n\xff\xfe\n", "line 2: not UTF-8"),
        (b"# none\n\n", "names no paper"),
        (b"arXiv: 2401.01234 [astro-ph.GA]\n\nA paper's title\n", 'line 3: "A paper\'s title" is no arXiv id and no bibcode'),
    ],
)
def test_a_bad_list_of_papers_is_told(tmp_path, content, text):
    (tmp_path / "papers.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"papers.txt,? {text}"):
        read_papers(tmp_path / "papers.txt")
    with pytest.raises(DataError, match=r"cannot read .*none\.txt: No such file"):
        read_papers(tmp_path / "none.txt")
