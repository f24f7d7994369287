import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TOOL = TESTS.parent / "tools" / "write_report.py"


@pytest.fixture
def run_folder(tmp_path):
    """The finished run of the report's tests, not yet compared."""
    spec = importlib.util.spec_from_file_location("report_conftest", TESTS / "report" / "conftest.py")
    builders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builders)
    folder = builders.make_run_folder(tmp_path / "run")
    for path in folder.glob("evaluation/*difference*.json"):
        path.unlink()
    return folder


def run(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)


def test_compares_writes_and_closes_with_the_headline(run_folder):
    done = run(run_folder)
    assert done.returncode == 0, done.stderr
    report = json.loads((run_folder / "report.json").read_text())
    assert report["exam"]["answer_text"]["difference"]["mean"]["taught"] > 0.3
    assert done.stdout == f"{report['headline']} See {run_folder / 'report.html'}.\n"
    assert (run_folder / "report.html").exists()


def test_different_sets_are_refused_and_no_report_is_written(run_folder):
    path = run_folder / "evaluation/after_answer_text.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"question_set_sha256": "another"}))
    done = run(run_folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the scores of runs/base and runs/hf cannot be subtracted: they differ in question set")
    assert done.stderr.count("\n") == 1
    assert not (run_folder / "report.json").exists()


def test_a_folder_that_is_no_run(tmp_path):
    done = run(tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none'} has no resolved.toml; name the folder of a training run\n"
