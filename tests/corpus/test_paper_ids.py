import pytest

from megatron_astro.corpus.paper_ids import paper_key, paper_version, source_papers
from megatron_astro.corpus_records import Document
from megatron_astro.records import Question


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        ("2401.01234v3", "2401.01234"),
        ("arXiv:2401.01234", "2401.01234"),
        ("https://arxiv.org/abs/2401.01234v1", "2401.01234"),
        ("http://export.arxiv.org/pdf/astro-ph/0601001v2.pdf", "astro-ph/0601001"),
        ("astro-ph.CO/0601001v2", "astro-ph.co/0601001"),
        ("1996ARA&A..34..645S", "1996ara&a..34..645s"),
        ("joss-stingray-v1", "joss-stingray-v1"),
        ("notes_v2", "notes_v2"),
    ],
)
def test_versions_and_spellings_of_a_paper_share_a_key(identifier, key):
    assert paper_key(identifier) == key


def test_the_version_is_the_recorded_one_else_the_ids():
    assert paper_version(Document(id="2401.01234v3", text="")) == 3
    assert paper_version(Document(id="2401.01234v3", text="", version=4)) == 4
    assert paper_version(Document(id="notes_v2", text="")) == 0


def test_source_papers_come_from_questions_and_the_list():
    question = Question(id="q1", question="?", options=("a", "b", "c", "d"), answer="A", source="arXiv:2401.01234v1")
    assert source_papers([question], ["1996ARA&A..34..645S", " "]) == {
        "1996ara&a..34..645s": "listed among the exam's papers",
        "2401.01234": "source of question q1",
    }
