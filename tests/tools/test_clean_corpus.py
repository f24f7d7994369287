import json
import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "clean_corpus.py"
TEXT = "We observe the stars of this cluster with the telescope and find that the mass of each is of interest to the model. "


def run(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def write(path, *texts):
    path.write_text("".join(json.dumps({"id": f"{path.stem}{number}", "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


def test_cleans_with_a_preset_and_says_what_is_left(tmp_path):
    corpus = write(tmp_path / "a.jsonl", TEXT * 3, TEXT * 3, "Too short.")
    (tmp_path / "rules.toml").write_text('skip = ["duplicate_sentences", "duplicate_ngrams", "repaired_share", "phrase_loops"]\n')
    done = run(corpus, "--output", tmp_path / "out", "--preset", tmp_path / "rules.toml", "--workers", 1)
    assert (done.returncode, done.stderr) == (0, "")
    num_words = 3 * len(TEXT.split())
    assert done.stdout == (
        f"Wrote {tmp_path}/out/documents.jsonl: 1 of 3 documents, {num_words} of {2 * num_words + 2} words; report.md says what went.\n"
    )
    (document,) = map(json.loads, (tmp_path / "out" / "documents.jsonl").read_text().splitlines())
    assert (document["id"], document["num_words"]) == ("a0", num_words)
    assert (tmp_path / "out" / "resolved.toml").read_text().startswith('skip = ["duplicate_sentences"')


def test_bad_input_is_one_line_and_status_2(tmp_path):
    corpus = write(tmp_path / "a.jsonl", TEXT)
    (tmp_path / "empty.jsonl").touch()
    for arguments, text in (
        ((tmp_path / "none.jsonl",), "does not exist"),
        ((tmp_path / "empty.jsonl",), "there is nothing in it"),
        ((corpus, "--skip", "colour"), "skip names 'colour', which is no step and no rule"),
        ((corpus, "--workers", "-1"), "workers 0 or more"),
        ((corpus, "--exams", tmp_path / "none.csv"), "cannot read"),
        ((corpus, "--executor", "slurm"), "slurm.partition is empty"),
        ((corpus, "--slurm.dry-run", "True"), "slurm.dry_run is True, but the executor is local"),
        ((), "no documents are named"),
    ):
        done = run(*arguments, "--output", tmp_path / "out")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_bad_line_is_one_line_too(tmp_path):
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"id": "a"}\n')
    done = run(corpus, "--output", tmp_path / "out", "--workers", 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: {corpus}, line 1: not a Document: Object missing required field `text`; mend or remove the line\n"
    )


def test_slurm_dry_run_writes_the_scripts(tmp_path):
    corpus = write(tmp_path / "a.jsonl", TEXT)
    options = (
        "--executor",
        "slurm",
        "--slurm.partition",
        "cpu",
        "--slurm.dry-run",
        "True",
        "--slurm.setup",
        "source env/bin/activate",
    )
    done = run(corpus, "--output", tmp_path / "out", *options)
    assert (done.returncode, done.stderr) == (0, "")
    logs = tmp_path / "out" / "work" / "logs"
    script = (logs / "1_documents" / "launch_script.slurm").read_text()
    assert "#SBATCH --partition=cpu" in script
    assert "source env/bin/activate" in script
    assert f"launch_pickled_pipeline {logs}/1_documents/executor.pik" in script
    submit = (logs / "submit.sh").read_text()
    assert subprocess.run(["bash", "-n", logs / "submit.sh"], check=False).returncode == 0
    assert submit.count("sbatch --parsable") == 3
