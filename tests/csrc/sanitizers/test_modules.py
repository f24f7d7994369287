"""The property and hostile-input tests of `_data` and `_corpus` again, on builds that AddressSanitizer and UBSan end at the first fault."""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).parents[3]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILE = ("-std=c++20", "-O1", "-g", "-fPIC", "-fvisibility=hidden", *SANITIZE)
# Put the sanitized module in the place of the installed one, then run pytest on what follows.
START = """
import importlib.util, sys
name = sys.argv[1]
spec = importlib.util.spec_from_file_location("megatron_astro." + name, sys.argv[2])
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import megatron_astro, pytest
setattr(megatron_astro, name, module)
sys.exit(pytest.main(sys.argv[3:]))
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a build takes a minute of CPU


def runtime(name):
    """The path of a compiler's runtime library, or None."""
    path = Path(subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip())
    return path if path.is_absolute() and path.exists() else None


@pytest.fixture(scope="module", autouse=True)
def runtimes():
    if runtime("libasan.so") is None or runtime("libubsan.so") is None:
        pytest.skip("needs g++ with libasan and libubsan")


def build(sources, module):
    """Compile sources into a module with sanitizers."""
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]

    def compile_file(source):
        target = module.parent / f"{source.stem}.o"
        subprocess.run(["g++", *COMPILE, *includes, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_file, sources))
    subprocess.run(["g++", "-shared", *SANITIZE, *objects, "-o", str(module)], check=True)


def run_sanitized(module, *arguments):
    preloaded = " ".join(str(runtime(name)) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"))
    environment = {
        **os.environ,
        "LD_PRELOAD": preloaded,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps what it allocates
        "PYTHONMALLOC": "malloc",  # so that a read past the end of a short string is seen: Python keeps those in blocks of its own
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", START, module.stem, str(module), "-q", "--capture=sys", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["data", "corpus"])
def test_no_bad_access_in_any_test_of_the_compiled_code(name, tmp_path):
    """Without the tests of requests beyond memory, which the sanitizer ends by itself, and of timing."""
    module = tmp_path / f"_{name}.so"
    build(sorted((ROOT / "csrc" / name).glob("*.cpp")), module)
    done = run_sanitized(module, f"tests/csrc/{name}", "-k", "not memory and not gil")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


def test_the_sanitizer_would_have_seen_it(tmp_path):
    """Red once, in itself: a read one past the end of an array ends a process that was built the same way."""
    source = tmp_path / "overrun.cpp"
    source.write_text(
        "#include <pybind11/numpy.h>\n"
        "PYBIND11_MODULE(_data, module) {\n"
        '  module.def("overrun", [](long n) { std::vector<long> v(n); volatile const long* p = v.data(); return p[n]; });\n'
        "}\n"
    )
    build([source], tmp_path / "_data.so")
    test = tmp_path / "test_overrun.py"
    test.write_text("from megatron_astro import _data\n\n\ndef test_overrun():\n    _data.overrun(7)\n")
    done = run_sanitized(tmp_path / "_data.so", str(test), "--rootdir", str(tmp_path), "-c", "/dev/null")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
