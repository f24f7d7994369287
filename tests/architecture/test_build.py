"""What MEGATRON_ASTRO_CUDA does when the package is built."""

import importlib.util
from pathlib import Path

import pytest
import setuptools
from pybind11.setup_helpers import ParallelCompile

SETUP = Path(__file__).parents[2] / "setup.py"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """setup.py as a module, on a machine without CUDA: nothing is built, no variable is set, the usual places are empty."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setattr(ParallelCompile, "install", lambda _: None)
    spec = importlib.util.spec_from_file_location("setup_of_the_package", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "USUAL_CUDA", tmp_path / "usual")
    for name in ("MEGATRON_ASTRO_CUDA", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return module


PARTS = ["bin/nvcc", "include/cuda_runtime_api.h", "lib64/libcudart_static.a"]


def toolkit(root, version=12080):
    """What is looked for of a CUDA toolkit."""
    for name in PARTS:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"#define CUDART_VERSION  {version}\n")
        (root / name).chmod(0o755)
    return root


def test_on_without_a_toolkit_fails_and_says_what_was_looked_for(build, monkeypatch, tmp_path):
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", "on")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as failure:
        build.find_cuda()
    for text in (
        "MEGATRON_ASTRO_CUDA=on",
        f"{tmp_path / 'home'} has no bin/nvcc",
        f"{tmp_path / 'usual'} has no bin/nvcc",
    ):
        assert text in str(failure.value)


@pytest.mark.parametrize("part", PARTS)
def test_a_compiler_without_its_headers_or_library_is_no_toolkit(build, monkeypatch, tmp_path, part):
    (toolkit(tmp_path / "home") / part).unlink()
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", "on")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit, match=f"{tmp_path / 'home'} has no {part.replace('lib64', 'lib')}"):
        build.find_cuda()


def test_a_toolkit_that_does_not_know_the_newest_gpus_is_none(build, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "home", version=12060)))
    assert build.find_cuda() is None
    assert f"{tmp_path / 'home'} is CUDA 12.6" in capsys.readouterr().out
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", "on")
    with pytest.raises(SystemExit, match=r"no CUDA toolkit of 12\.8 or later was found: .*home is CUDA 12\.6"):
        build.find_cuda()


@pytest.mark.parametrize("value", ["yes", "", "ON", "1"])
def test_another_value_is_refused(build, monkeypatch, value):
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", value)
    with pytest.raises(SystemExit, match=f"MEGATRON_ASTRO_CUDA is '{value}'; give auto, on or off"):
        build.find_cuda()


def test_off_ignores_a_toolkit_that_is_there(build, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "home")))
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", "off")
    assert build.find_cuda() is None


@pytest.mark.parametrize("wanted", ["auto", "on"])
@pytest.mark.parametrize("place", ["CUDA_HOME", "CUDA_PATH", "the path", "the usual one"])
def test_a_toolkit_is_found(build, monkeypatch, tmp_path, place, wanted):
    root = toolkit(tmp_path / ("usual" if place == "the usual one" else "somewhere"))
    if place.startswith("CUDA"):
        monkeypatch.setenv(place, str(root))
    elif place == "the path":
        monkeypatch.setenv("PATH", str(root / "bin"))
    monkeypatch.setenv("MEGATRON_ASTRO_CUDA", wanted)
    assert build.find_cuda() == build.Cuda(nvcc=root / "bin/nvcc", root=root)


def test_a_compiler_outside_the_toolkit_does_not_hide_it(build, monkeypatch, tmp_path):
    """A wrapper on the PATH, as distributions install."""
    wrapper = tmp_path / "wrappers/bin/nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    root = toolkit(tmp_path / "usual")
    assert build.find_cuda() == build.Cuda(nvcc=root / "bin/nvcc", root=root)


def test_auto_without_a_toolkit_says_so_and_goes_on(build, capsys):
    assert build.find_cuda() is None
    assert "no CUDA toolkit of 12.8 or later was found" in capsys.readouterr().out


def test_what_was_compiled_without_cuda_is_not_linked_into_a_build_with_it(build, monkeypatch, tmp_path):
    """Objects are kept from one build to the next: each has one command that makes it."""
    toolkit(tmp_path / "usual")
    monkeypatch.setattr(build, "torch_folder", lambda: tmp_path / "torch")
    commands = {}
    monkeypatch.setattr(build, "run", lambda command: commands.setdefault(command[-1], set()).add(tuple(command)))
    for wanted in ("off", "on"):
        monkeypatch.setenv("MEGATRON_ASTRO_CUDA", wanted)
        builder = build.BuildExtensions(setuptools.Distribution())
        builder.build_temp, builder.build_lib = str(tmp_path / "objects"), str(tmp_path / "built")
        builder.extensions = [build.extension(name, []) for name in ("_corpus", "_data", "_ops", "_ops_kernels")]
        builder.build_extensions()
    objects = {output: made_by for output, made_by in commands.items() if output.endswith(".o")}
    assert objects
    assert all(len(made_by) == 1 for made_by in objects.values())
