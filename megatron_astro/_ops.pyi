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

# Hooks for tests: the CPU kernels of the instruction set in use, on addresses. Nothing is checked but that an address is not 0 and a
# multiple of its elements' size (ValueError); `dtype` is "float32" or "bfloat16"; shapes are those of csrc/ops/OPERATION.h, without gaps.

def raw_rms_norm_forward(
    hidden: int, weight: int, output: int, inverse_rms: int, rows: int, columns: int, epsilon: float, dtype: str, /
) -> None:
    """Norm without a residual; `inverse_rms` is float32."""

def raw_swiglu_forward(gate_up: int, output: int, rows: int, columns: int, dtype: str, /) -> None:
    """`columns` is the output's."""

def raw_swiglu_backward(grad_output: int, gate_up: int, grad_gate_up: int, rows: int, columns: int, dtype: str, /) -> None:
    """`columns` is the output's."""

def raw_cross_entropy_gradient(
    logits: int, labels: int, maximum: int, total: int, grad_losses: int, rows: int, columns: int, dtype: str, /
) -> None:
    """In place, for the whole vocabulary; labels are int64 and -100 is ignored, statistics and gradients of losses are float32."""

def raw_adamw(
    parameter: int,
    gradient: int,
    exp_avg: int,
    exp_avg_sq: int,
    copy: int,
    size: int,
    learning_rate: float,
    step: float,
    gradient_dtype: str,
    /,
) -> None:
    """One tensor: betas 0.9 and 0.95, epsilon 1e-8, weight decay 0.1; the copy is bfloat16, all else but the gradient float32."""
