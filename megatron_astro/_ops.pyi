"""What the compiled operations (csrc/ops) were built with and what they find here. Import `megatron_astro.ops.native` first."""

def best_instruction_set() -> str:
    """The widest CPU instruction set this processor runs: "avx512", "avx2" or "baseline"."""

def instruction_set() -> str:
    """The CPU instruction set whose kernels run in this process."""

def use_instruction_set(name: str) -> None:
    """Run the kernels of another instruction set from now on (for tests); ValueError if this processor cannot."""

def cuda_architectures() -> str:
    """The GPU architectures compiled in, as "80 89 90a 100"; empty in a build without CUDA."""

def cuda_device_count() -> int:
    """How many GPUs the CUDA runtime finds, 0 in a build without CUDA; ValueError with the runtime's reason if it finds no driver."""

def cuda_device(index: int) -> tuple[str, int]:
    """Name and compute capability (major * 10 + minor) of a GPU; ValueError with the runtime's reason."""
