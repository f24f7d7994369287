"""Build the compiled modules; everything else about the package is in pyproject.toml."""

from pathlib import Path

import pybind11
from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

# pybind11 counts as a system header: its own conversions are not ours to warn about. Losing bits silently is an error.
COMPILE_ARGUMENTS = [
    "-O3", "-g0", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-conversion",
    "-Werror=conversion", "-Werror=sign-conversion", "-Werror=return-type", "-Werror=uninitialized",
    "-isystem", pybind11.get_include(),
]  # fmt: skip

# A folder of csrc is a module: csrc/data -> megatron_astro._data. None of these needs torch.
MODULES = ("corpus", "data")


def extension(name: str) -> Pybind11Extension:
    """The compiled module of one folder."""
    return Pybind11Extension(
        f"megatron_astro._{name}",
        sources=sorted(map(str, Path("csrc", name).glob("*.cpp"))),
        depends=sorted(map(str, Path("csrc").rglob("*.h"))),
        cxx_std=20,
        extra_compile_args=COMPILE_ARGUMENTS,
    )


# The fused operations (csrc/ops -> megatron_astro._ops), which use PyTorch's stable ABI, join this list.
setup(ext_modules=[extension(name) for name in MODULES], cmdclass={"build_ext": build_ext})
