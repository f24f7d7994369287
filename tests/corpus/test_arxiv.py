import json

import pytest

from megatron_astro.corpus.arxiv import (
    arxiv_id,
    build_metadata_index,
    categories_of_id,
    date_of_id,
    decode_metadata,
    find_metadata,
    parse_date,
)
from megatron_astro.errors import DataError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("0704.0001", ("0704.0001", 0)),
        ("arXiv-2401.01916v2.tar.gz", ("2401.01916", 2)),
        ("astro-ph/9901001", ("astro-ph/9901001", 0)),
        ("astro-ph9901001.gz", ("astro-ph/9901001", 0)),
        ("astro-ph_9901001v3", ("astro-ph/9901001", 3)),
        ("hep-th.XX", ("", 0)),
        ("1399.00001", ("", 0)),
        ("paper12.34567", ("", 0)),
        ("v1.2301.123", ("", 0)),
        ("star9901001", ("", 0)),
    ],
)
def test_ids(name, found):
    assert arxiv_id(name) == found


def test_what_an_id_says():
    assert [date_of_id(i) for i in ("0704.0001", "2401.01916", "astro-ph/9901001", "emcee")] == [
        "2007-04",
        "2024-01",
        "1999-01",
        "",
    ]
    assert categories_of_id("astro-ph/9901001") == ("astro-ph",)
    assert categories_of_id("0704.0001") == ()


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2015-09-14T01:02", "2015-09-14"),
        ("2015-09", "2015-09"),
        ("2015", "2015"),
        ("2015-13-01", ""),
        ("2015-9-1", ""),
        ("2015/09/14", ""),
        ("14 September 2015", ""),
        ("x", ""),
    ],
)
def test_dates(text, date):
    assert parse_date(text) == date


def test_metadata_is_found_by_id(tmp_path):
    lines = [
        {"id": "0704.0001", "title": "A", "categories": "astro-ph.GA gr-qc",
         "versions": [{"version": "v1", "created": "Mon, 2 Apr 2007 19:18:42 GMT"}, {"created": "x"}]},
        {"id": "astro-ph/9901001", "categories": ["astro-ph"], "date": "1999-01-04"},
    ]  # fmt: skip
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    build_metadata_index(metadata, tmp_path / "index")
    found = find_metadata(metadata, tmp_path / "index", "0704.0001")
    assert (found.first_date(), found.category_names(), len(found.versions)) == ("2007-04-02", ("astro-ph.GA", "gr-qc"), 2)
    assert find_metadata(metadata, tmp_path / "index", "astro-ph/9901001").first_date() == "1999-01-04"
    assert find_metadata(metadata, tmp_path / "index", "none") is None
    metadata.write_text("\n".join(map(json.dumps, lines[::-1])) + "\n")
    with pytest.raises(DataError, match=r"'astro-ph/9901001' stands where '0704.0001' stood"):
        find_metadata(metadata, tmp_path / "index", "0704.0001")


def test_bad_metadata_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"id": "a"}\n{"title": 3}\n')
    with pytest.raises(DataError, match=r"m\.jsonl, line 2: no arXiv metadata"):
        build_metadata_index(tmp_path / "m.jsonl", tmp_path / "index")
    with pytest.raises(DataError, match="m: not a line of arXiv metadata"):
        decode_metadata(b'{"id": 3}', "m")
