"""The demo's stages: done once, done again when what they read changes, begun again when interrupted."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples/tiny_cpu/demo.py"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The demo as a module, writing below a temporary folder."""
    spec = importlib.util.spec_from_file_location("tiny_demo", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tiny_demo", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DONE", tmp_path / "stages")
    (tmp_path / "stages").mkdir()
    return module


@pytest.fixture
def stage(demo, tmp_path):
    """A stage that appends a line to its output each time it runs, and reads one file."""
    source, output = tmp_path / "source.txt", tmp_path / "output.txt"
    source.write_text("one")
    code = f"open({str(output)!r}, 'a').write('ran ')"
    return demo.Stage(
        name="copy", says="copying", command=(sys.executable, "-c", code), reads=(source,), makes=(output,), usual_seconds=1
    )


def test_a_done_stage_is_not_done_again(demo, stage):
    first = demo.run_stage(stage)
    assert demo.run_stage(stage) == first
    assert stage.makes[0].read_text() == "ran "


def test_a_changed_input_or_a_lost_output_makes_it_stale(demo, stage):
    demo.run_stage(stage)
    stage.reads[0].write_text("two")
    demo.run_stage(stage)
    assert stage.makes[0].read_text() == "ran "  # done again from nothing: the old output was removed first
    stage.makes[0].unlink()
    demo.run_stage(stage)
    assert stage.makes[0].read_text() == "ran "


@pytest.mark.parametrize(("goes_on", "expected"), [(False, "ran "), (True, "ran ran ")])
def test_an_interrupted_stage_starts_over_unless_it_can_go_on(demo, stage, goes_on, expected):
    import dataclasses

    stage = dataclasses.replace(stage, goes_on=goes_on)
    broken = dataclasses.replace(stage, command=(*stage.command[:2], stage.command[2] + "; raise SystemExit(1)"))
    (demo.DONE / "copy.json").unlink(missing_ok=True)
    with pytest.raises(SystemExit, match="the stage 'copy' failed"):
        demo.run_stage(broken)
    note = demo.DONE / "copy.json"
    note.write_text(note.read_text().replace(demo.fingerprint(broken), demo.fingerprint(stage)))
    note.write_text(json.dumps(json.loads(note.read_text()) | {"spent": 100.0}))
    seconds = demo.run_stage(stage)
    assert stage.makes[0].read_text() == expected
    assert (seconds > 100) == goes_on  # the report's wall time counts every try that the result stands on
    assert demo.run_stage(stage) == seconds
