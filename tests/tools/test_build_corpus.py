import os
import subprocess
import sys
from pathlib import Path

from megatron_astro.corpus_records import Document, Reject
from megatron_astro.records import read_lines

TOOL = Path(__file__).parents[2] / "tools" / "build_corpus.py"
PAPER = r"""\documentclass{article}\begin{document}\begin{abstract}We see \citep{k}.\end{abstract}
\section{Introduction}Intro.\section{Method}How.\section{Conclusions}So.\end{document}"""


def run(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def test_builds_and_says_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ms.tex").write_text(PAPER)
    (tmp_path / "b.tex").write_text("no paper")
    done = run(tmp_path / "a", tmp_path / "b.tex", "--output", tmp_path / "out", "--citations", "drop")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"Wrote {tmp_path}/out/documents.jsonl: 1 documents of 2 papers, 6 words; 1 rejects (unreadable 1).\n")
    (document,) = read_lines(tmp_path / "out" / "documents.jsonl", Document)
    assert (document.id, document.text) == ("a", "We see.\n\nIntroduction\n\nIntro.\n\nConclusions\n\nSo.")
    (reject,) = read_lines(tmp_path / "out" / "rejects.jsonl", Reject)
    assert reject.paper == "b"


def test_custom_sections(tmp_path):
    (tmp_path / "a.tex").write_text(PAPER)
    output = tmp_path / "out"
    assert run(tmp_path / "a.tex", "--output", output, "--selection", "custom", "--sections", "^meth", "abstract").returncode == 0
    (document,) = read_lines(output / "documents.jsonl", Document)
    assert document.text == "We see (k).\n\nMethod\n\nHow."


def test_bad_input_is_one_line_and_status_2(tmp_path):
    done = run(tmp_path / "none", "--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: the input {tmp_path}/none does not exist; name a file or folder of papers\n"
