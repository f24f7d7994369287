import pytest

from megatron_astro.corpus.tables import DOCUMENTS_A_ROW_GROUP, open_writer
from megatron_astro.corpus_records import Document, Section
from megatron_astro.records import read_lines

SECTION = Section(kind="abstract", heading="", text="We.")
DOCUMENTS = [
    Document(id=str(i), text="We.", sections=(SECTION,), categories=("gr-qc",)) for i in range(DOCUMENTS_A_ROW_GROUP + 2)
]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_come_back(tmp_path, kind):
    with open_writer(tmp_path / "d", kind) as writer:
        for document in DOCUMENTS:
            writer.write(document)
    if kind == "jsonl":
        assert list(read_lines(tmp_path / "d", Document)) == DOCUMENTS
        return
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "d").to_pylist()
    assert [row["id"] for row in rows] == [document.id for document in DOCUMENTS]
    assert rows[-1]["sections"] == [{"kind": "abstract", "heading": "", "text": "We.", "level": 1}]
    assert rows[0]["categories"] == ["gr-qc"]
