"""Fused operations: what they compute (reference), the compiled kernels (fused), and which of the two a run uses (selection).

One file an operation: the reference in PyTorch, the differentiable function over the raw kernels (`torch.ops.megatron_astro`), and the
`Operation` that pairs them. Open `rms_norm` first, then `selection`. `python -m megatron_astro.ops` says what this machine would use
and why. The kernels are in csrc/ops, CPU and CUDA of one operation side by side; `native` loads them.
"""
