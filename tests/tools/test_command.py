"""How commands end: one sentence for what a user can mend, and no traceback for Ctrl-C."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from megatron_astro.errors import DataError

PATH = Path(__file__).parents[2] / "tools/command.py"


@dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.fixture
def end(monkeypatch, capsys):
    """Run an action as a command does; its exit status and what it said on standard error."""
    spec = importlib.util.spec_from_file_location("command_under_test", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["tool"])
    package = logging.getLogger("megatron_astro")
    before = package.handlers[:], package.level, package.propagate

    def run(fault):
        def action(options):
            raise fault

        with pytest.raises(SystemExit) as caught:
            module.run_command(Nothing, action)
        return caught.value.code, capsys.readouterr().err

    yield run
    package.handlers[:], package.level, package.propagate = before


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (DataError("the file is empty"), 2, "error: the file is empty\n"),
        (OSError(28, "No space left on device", "/data/x.json"), 2, "error: /data/x.json: No space left on device\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (
            MemoryError("std::bad_alloc"),
            2,
            "error: not enough memory (std::bad_alloc); ask for less at once, such as fewer steps or a smaller batch\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_ends_in_one_line(end, fault, status, text):
    assert end(fault) == (status, text)
