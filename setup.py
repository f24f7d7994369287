"""Build the compiled modules; everything else about the package is in pyproject.toml.

    csrc/corpus -> megatron_astro/_corpus  pybind11, no torch
    csrc/data -> megatron_astro/_data      pybind11, no torch
    csrc/ops  -> megatron_astro/_ops_kernels.so, which torch loads: operations registered through PyTorch's stable ABI, so that one
                 build serves torch 2.11 and later; and megatron_astro/_ops (pybind11), linked to it: build information.

MEGATRON_ASTRO_CUDA=auto|on|off says whether the CUDA kernels are built; auto: where a toolkit of 12.8 or later is found.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# pybind11 and torch count as system headers: their conversions are not ours to warn about. Losing bits silently is an error.
WARNINGS = [
    "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-conversion",
    "-Wno-restrict",  # GCC 12 sees overlaps in std::string that are not there (its bug 105651)
    "-Werror=conversion", "-Werror=sign-conversion", "-Werror=return-type", "-Werror=uninitialized",
]  # fmt: skip
COMPILE = [os.environ.get("CXX", "g++"), "-std=c++20", "-O3", "-g0", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", *WARNINGS, "-c"]
LINK = [COMPILE[0], "-shared", "-s"]
MODULE_ARGUMENTS = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_paths()["include"]]
KERNEL_ARGUMENTS = ["-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"]
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mprefer-vector-width=512"],
}
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # torch 2.11
USUAL_CUDA = Path("/usr/local/cuda")
CUDA_ARCHITECTURES = ("80", "89", "90a", "100")
OLDEST_CUDA = (12, 8)  # that knows all of them
CUDA_LIBRARIES = ("lib64", "lib")

MODULES = {"_corpus": sorted(Path("csrc/corpus").glob("*.cpp")), "_data": sorted(Path("csrc/data").glob("*.cpp"))}
OPS = Path("csrc/ops")
MODULES["_ops"] = [OPS / "module.cpp"]
KERNELS = sorted(path for path in OPS.glob("*.cpp") if path.stem not in {"module", "instruction_set"})


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit."""

    nvcc: Path
    root: Path


def find_cuda() -> Cuda | None:
    """The toolkit to build with, by MEGATRON_ASTRO_CUDA; SystemExit where it must be there and is not."""
    wanted = os.environ.get("MEGATRON_ASTRO_CUDA", "auto")
    if wanted not in {"auto", "on", "off"}:
        raise SystemExit(f"MEGATRON_ASTRO_CUDA is '{wanted}'; give auto, on or off")
    if wanted == "off":
        return None
    on_path = shutil.which("nvcc")
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    roots += [Path(on_path).resolve().parents[1]] if on_path else []
    roots += [USUAL_CUDA]
    obstacles = {root: why_not(root) for root in roots}
    for (
        root,
        obstacle,
    ) in obstacles.items():  # nvcc on the PATH may be a wrapper outside the toolkit: the root is where the headers are
        if obstacle is None:
            return Cuda(nvcc=root / "bin/nvcc", root=root)
    said = "no CUDA toolkit of {}.{} or later was found: ".format(*OLDEST_CUDA) + ", ".join(
        f"{root} {obstacle}" for root, obstacle in obstacles.items()
    )
    if wanted == "on":
        raise SystemExit(
            f"MEGATRON_ASTRO_CUDA=on, but {said} (CUDA_HOME, CUDA_PATH, nvcc on the PATH, the usual place); "
            "install one, or set CUDA_HOME"
        )
    print(f"megatron_astro: {said}; the CUDA kernels are not built (MEGATRON_ASTRO_CUDA=auto)")
    return None


def why_not(root: Path) -> str | None:
    """Why the kernels cannot be built with the toolkit of a folder, or None if they can."""
    header = root / "include/cuda_runtime_api.h"
    for path in (root / "bin/nvcc", header):
        if not path.is_file():
            return f"has no {path.relative_to(root)}"
    number = int(re.findall(r"#define CUDART_VERSION +(\d+)", header.read_text("utf-8", "replace"))[0])
    version = number // 1000, number % 1000 // 10
    if version < OLDEST_CUDA:
        return f"is CUDA {version[0]}.{version[1]}"
    if not any((root / folder / "libcudart_static.a").is_file() for folder in CUDA_LIBRARIES):
        return "has no lib/libcudart_static.a"
    return None


def torch_folder() -> Path:
    """Where torch is installed, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        raise SystemExit(
            "torch is not installed, and the fused operations are compiled against its headers; "
            "install torch >= 2.11 first, or leave out --no-build-isolation"
        )
    return Path(found.origin).parent


class BuildExtensions(build_ext):  # type: ignore[misc]  # setuptools has no types
    """Compiles the objects of all modules at once, on all cores: each CPU kernel once an instruction set, the .cu files with nvcc."""

    def get_ext_filename(self, fullname: str) -> str:
        """The kernel library belongs to no version of Python, and its name says none."""
        if fullname.rpartition(".")[2] == "_ops_kernels":
            return str(Path(*fullname.split("."))) + ".so"
        return str(super().get_ext_filename(fullname))

    def build_extensions(self) -> None:
        """Compile what is out of date, then link; the kernel library comes before the module that is linked to it."""
        torch, cuda = torch_folder(), find_cuda()
        objects = Path(self.build_temp) / ("with_cuda" if cuda else "without_cuda")  # an object of one is none of the other
        modules = {name: module_commands(objects / name, sources) for name, sources in MODULES.items()}
        kernels = kernel_commands(objects / "ops", torch, cuda) + (cuda_commands(objects / "ops", cuda) if cuda else [])
        outputs = {
            extension.name.rpartition(".")[2]: Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions
        }
        commands = [*chain.from_iterable(modules.values()), *kernels]
        for path in [*(Path(command[-1]) for command in commands), *outputs.values()]:
            path.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, sorted(filter(is_stale, commands), key=is_quick)))
        run(link_kernels([command[-1] for command in kernels], outputs["_ops_kernels"], torch, cuda))
        for name, compiled in modules.items():
            linked_to = [str(outputs["_ops_kernels"]), "-Wl,-rpath,$ORIGIN"] if name == "_ops" else []
            run([*LINK, *[command[-1] for command in compiled], *linked_to, "-o", str(outputs[name])])


def is_quick(command: list[str]) -> bool:
    """Whether a compilation is one of the many short ones: the long ones start first, so that none of them is left over at the end."""
    return not (command[-3].endswith((".cu", "module.cpp")) or "bindings" in command[-3])


def module_commands(objects: Path, sources: list[Path]) -> list[list[str]]:
    """One compiler call an object of a Python module; the source is the third word from the end, the object the last."""
    return [[*COMPILE, *MODULE_ARGUMENTS, str(source), "-o", str(objects / f"{source.stem}.o")] for source in sources]


def kernel_commands(objects: Path, torch: Path, cuda: Cuda | None) -> list[list[str]]:
    """One compiler call an object of the kernel library: its bindings to torch, and each CPU kernel once an instruction set."""
    includes = [word for folder in ("include", "include/torch/csrc/api/include") for word in ("-isystem", str(torch / folder))]
    defined = (
        [f'-DMEGATRON_ASTRO_CUDA_ARCHITECTURES="{" ".join(CUDA_ARCHITECTURES)}"', "-DMEGATRON_ASTRO_WITH_CUDA"] if cuda else []
    )
    bindings = [
        [*COMPILE, STABLE_ABI, *defined, *includes, str(source), "-o", str(objects / "bindings" / f"{source.stem}.o")]
        for source in [*sorted((OPS / "bindings").glob("*.cpp")), OPS / "instruction_set.cpp"]
    ]
    kernels = [
        [
            *COMPILE,
            *KERNEL_ARGUMENTS,
            *arguments,
            f"-DMEGATRON_ASTRO_ISA={name}",
            str(source),
            "-o",
            str(objects / name / f"{source.stem}.o"),
        ]
        for source in KERNELS
        for name, arguments in INSTRUCTION_SETS.items()
    ]
    return bindings + kernels


def cuda_commands(objects: Path, cuda: Cuda) -> list[list[str]]:
    """One nvcc call a .cu file, for all architectures."""
    architectures = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in CUDA_ARCHITECTURES]
    arguments = ["-std=c++20", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden", *architectures]
    return [
        [str(cuda.nvcc), *arguments, "-c", str(source), "-o", str(objects / "cuda" / f"{source.stem}.o")]
        for source in sorted(OPS.glob("*.cu"))
    ]


def link_kernels(objects: list[str], output: Path, torch: Path, cuda: Cuda | None) -> list[str]:
    """Link against torch, whose libraries the process has loaded by then; CUDA's runtime goes in whole, so that it loads without a driver.

    libtorch.so brings torch's CUDA libraries where there are any: it must stay even though nothing here names it.
    """
    libraries = [f"-L{torch / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-Wl,--as-needed", "-ltorch_cpu", "-fopenmp"]
    if cuda:
        folder = next(path for path in map(cuda.root.joinpath, CUDA_LIBRARIES) if (path / "libcudart_static.a").is_file())
        libraries += [f"-L{folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    return [*LINK, f"-Wl,-soname,{output.name}", *objects, *libraries, "-o", str(output)]


def is_stale(command: list[str]) -> bool:
    """Whether an object is older than its source, any header or this file (`python setup.py build_ext --inplace` keeps objects)."""
    compiled = Path(command[-1])
    inputs = [Path(command[-3]), Path(__file__), *Path("csrc").rglob("*.h"), *Path("csrc").rglob("*.cuh")]
    return not compiled.exists() or compiled.stat().st_mtime < max(path.stat().st_mtime for path in inputs)


def run(command: list[str]) -> None:
    """Run one compiler; SystemExit with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    if done.stderr:
        print(done.stderr)


def extension(name: str, sources: list[Path]) -> Extension:
    """What setuptools must know: the name, and what belongs into a source distribution."""
    headers = sorted(str(path) for pattern in ("*.h", "*.cuh", "*.cu") for path in Path("csrc").rglob(pattern))
    return Extension(f"megatron_astro.{name}", sources=[str(source) for source in sources], depends=headers)


setup(
    ext_modules=[extension(name, sources) for name, sources in {**MODULES, "_ops_kernels": KERNELS}.items()],
    cmdclass={"build_ext": BuildExtensions},
)
