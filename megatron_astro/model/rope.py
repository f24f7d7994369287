"""Rotary inverse frequencies, in the float32 arithmetic of the Hugging Face reference so that long positions agree too."""

import math

import torch
from torch import Tensor

from megatron_astro.model.sizes import LlamaSizes, RopeScaling


def inverse_frequencies(sizes: LlamaSizes) -> Tensor:
    """Radians per position of each rotated pair. -> [head_size / 2], float32.

    Theta as in Su et al. 2021 (RoFormer, eq. 15); scaling as in the Llama 3.1 reference code (`apply_scaling`).
    """
    pairs = torch.arange(0, sizes.head_size, 2, dtype=torch.int64).float()
    frequencies = 1.0 / (sizes.rope_theta ** (pairs / sizes.head_size))
    return frequencies if sizes.rope_scaling is None else _stretch(frequencies, sizes.rope_scaling)


def _stretch(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated. [d/2] -> [d/2]."""
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_positions / wavelengths  # full turns over the original context
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    between = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    stretched = torch.where(turns < scaling.low_freq_factor, frequencies / scaling.factor, between)
    return torch.where(turns > scaling.high_freq_factor, frequencies, stretched)
