"""What a person found in the real papers beside the repository (`shared/data/papers`), and whether a text agrees."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

PAPERS = Path(__file__).parents[2].parent / "shared" / "data" / "papers"
NEEDS_PAPERS = "needs the real papers in ../shared/data/papers"

# A part may go on a little after its last plain words: a reference, a citation, a URL, a formula, a thanks without a heading.
END_CHARACTERS = 400
START_CHARACTERS = 60


@dataclass(frozen=True)
class Check:
    """One thing `expected.json` says, and whether the text agrees."""

    paper: str
    name: str
    holds: bool


def folded(text):
    """White space, case, quotes, dashes and what LaTeX writes them with, made one."""
    text = text.replace("~", " ").replace("\u2014", "---").replace("\u2013", "--").replace("\\&", "&")
    text = re.sub("[\u201c\u201d]|``|''", '"', text).replace("\u2019", "'").replace("\u2018", "`")
    return re.sub(r"\s+", " ", text).strip().lower()


def paper_folders():
    return sorted(path.parent for path in PAPERS.glob("*/expected.json"))


def expected_of(folder):
    return json.loads((folder / "expected.json").read_text())


def check_paper(name, expected, title, parts):
    """Every check of one paper; `parts` maps abstract, introduction and conclusion to their texts."""
    yield Check(name, "title", folded(expected["title"]) in folded(title))
    for part in ("abstract", "introduction", "conclusion"):
        text = folded(parts.get(part, ""))
        first, last = expected[f"{part}_first_words"], expected[f"{part}_last_words"]
        if first is None:
            continue
        trailing = expected.get(f"{part}_trailing_ok")
        ends = text.split(folded(trailing))[0] if trailing else text
        yield Check(name, f"{part} starts", folded(first) in text[: len(folded(first)) + START_CHARACTERS])
        yield Check(name, f"{part} ends", folded(last) in ends[-len(folded(last)) - END_CHARACTERS :])
    whole = "\n".join(parts.values())
    for text in expected["must_not_contain"]:
        yield Check(name, f"leaves out {text!r}", text not in whole and folded(text) not in folded(whole))
