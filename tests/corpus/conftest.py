import gzip
import io
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # papers_expected


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
