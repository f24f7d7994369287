import gzip
import io
import json
import random
import re
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # papers_expected

SHARED = Path(__file__).parents[3] / "shared" / "data"
WORDS = re.findall(
    r"\w+",
    "the of and to in is that we for with a from this are be by on as at which stars galaxy cluster mass radius light dust gas disk orbit"
    " planet spectrum line emission model sample survey telescope observed measured found show large small bright faint young old binary"
    " white dwarf neutron black hole core envelope wind magnetic field rotation velocity distance redshift metallicity temperature"
    " density pressure energy flux luminosity magnitude colour image catalogue uncertainty likelihood prior posterior fit residual",
)


@pytest.fixture(scope="session")
def make_text():
    """English-looking text of so many words; the seed decides which."""

    def make(seed, num_words=200):
        draw = random.Random(seed)
        sentences = []
        while num_words > 0:
            length = min(draw.randint(8, 16), num_words)
            sentences.append(" ".join(draw.choice(WORDS) for _ in range(length)).capitalize() + ".")
            num_words -= length
        return "\n\n".join(" ".join(sentences[start : start + 4]) for start in range(0, len(sentences), 4))

    return make


@pytest.fixture(scope="session")
def write_documents():
    """Write dictionaries as a corpus file, a line each."""

    def write(path, documents):
        path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def shared_folder():
    """A folder of the real data beside the checkout; the test is skipped where it is absent."""

    def find(name):
        folder = SHARED / name
        if not folder.is_dir():
            pytest.skip(f"needs the real data {name}/ in ../shared/data beside the checkout")
        return folder

    return find


@pytest.fixture(scope="session")
def papers(shared_folder):
    """The text of the real papers by the names of their folders, comments and preamble cut off by patterns: crude, but no reader."""
    found = {}
    for folder in sorted(shared_folder("papers").iterdir()):
        if folder.is_dir():
            expected = folder / "expected.json"
            main = folder / (json.loads(expected.read_text())["main"] if expected.exists() else "paper.md")
            text = re.sub(r"(?m)(?<!\\)%.*\n?", "", main.read_text(errors="replace"))
            body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\\begin\{thebibliography|\Z)", text, re.DOTALL)
            found[folder.name] = body[1] if body else re.sub(r"\A---.*?\n---\n", "", text, flags=re.DOTALL)
    return found


@pytest.fixture(scope="session")
def textbook(shared_folder):
    """The chapters of a real textbook by name."""
    return {path.stem: path.read_text() for path in sorted(shared_folder("text/openstax_astronomy_2e").glob("*.txt"))}


def tar_of(files, mode="w:gz"):
    """The bytes of a tar of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def make_tar():
    return tar_of


@pytest.fixture
def make_gz():
    return gzip.compress


def paper_source(word="star", title="On stars", conclusion="Summary and conclusions"):
    return (
        rf"""\documentclass{{aastex}} \begin{{document}} \title{{{title}}}
\begin{{abstract}} We study a {word}. \end{{abstract}}
\section{{Introduction}} A {word} shines.
\section{{Methods}} We look.
\section{{{conclusion}}} The {word} shines.
\section*{{Acknowledgements}} We thank nobody.
\end{{document}}
"""
    ).encode()


@pytest.fixture
def source():
    return paper_source
