"""The rules of the house that a program can check."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "megatron_astro"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py") if path.name != "command.py")
FORBIDDEN_NAMES = re.compile(r"util|common|helper|misc|manager|base", re.IGNORECASE)


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


@named(MODULES + TOOLS)
def test_files_and_functions_are_short(path):
    limit = 60 if path.parent.name == "tools" else 300
    assert len(path.read_text().splitlines()) <= limit
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is too long"


@named(MODULES)
def test_modules_say_what_they_are(path):
    if path.name != "__init__.py" or path.stat().st_size:
        assert ast.get_docstring(ast.parse(path.read_text()))
    assert not FORBIDDEN_NAMES.search(path.stem)


@named(MODULES)
def test_no_environment_no_globals_no_broad_except(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}:
            assert path == PACKAGE / "parallel/launch.py", "only parallel/launch.py reads environment variables"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            assert caught not in {"", "Exception", "BaseException"}


@named(sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"))
def test_every_stage_has_its_page(path):
    assert ast.get_docstring(ast.parse((path / "__init__.py").read_text())), f"{path.name}/__init__.py has no docstring"


@named(sorted((ROOT / "tests").glob("*/test_*.py")))
def test_tests_mirror_the_package(path):
    folder, module = path.parent.name, path.stem.removeprefix("test_")
    if folder in {"architecture", "drills"}:
        return
    candidates = [PACKAGE / folder / f"{module}.py", ROOT / folder / f"{module}.py", ROOT / "examples/tiny_cpu" / f"{module}.py"]
    assert any(candidate.exists() for candidate in candidates) or (ROOT / "examples/tiny_cpu" / f"{module}.jsonl").exists()


# What takes long to import, and what no --help needs. (A limit in seconds would judge the machine and what else it does.)
HEAVY = {"datatrove", "gguf", "matplotlib", "megatron", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers"}


@named(TOOLS)
def test_help_is_quick_and_shows_defaults(path):
    code = "import runpy, sys; sys.argv[1:] = ['--help']; sys.path.insert(0, 'tools')\n"
    code += f"try: runpy.run_path({str(path)!r}, run_name='__main__')\n"
    code += "finally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())
    assert "--help" in done.stdout
    assert "(required)" in done.stdout or "(default:" in done.stdout


def test_no_assert_in_cpp():
    for path in (ROOT / "csrc").rglob("*.[ch]*"):
        assert not re.search(r"(?<!static_)\bassert\(", path.read_text()), f"{path} asserts; throw instead"


def test_readme_tree_is_the_real_tree():
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```text\n(megatron_astro/\n.*?)```", readme, re.DOTALL).group(1)
    for name in re.findall(r"^    (\w+)/", block, re.MULTILINE):
        assert (PACKAGE / name).is_dir(), f"README names megatron_astro/{name}/, which does not exist"
    for path in PACKAGE.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"    {path.name}/" in block, f"README's tree lacks {path.name}/"


def test_readme_names_every_tool_and_make_target():
    readme = (ROOT / "README.md").read_text()
    for tool in TOOLS:
        assert f"tools/{tool.name}" in readme, f"README does not mention {tool.name}"
    for target in re.findall(r"`?make (\w+)", readme):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"README names make {target}"


def test_presets_load():
    from megatron_astro.config.command_line import parse_options
    from megatron_astro.config.run import RunConfig

    presets = sorted((ROOT / "examples").rglob("*.toml"))
    assert presets
    for preset in presets:
        assert parse_options(RunConfig, ["--preset", str(preset)])


def test_the_lock_satisfies_the_ranges():
    from packaging.requirements import Requirement

    lock = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    pinned = {name.lower().replace("_", "-"): version for name, version in lock.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), f"{requirement} is not met by requirements.lock"
