"""`python -m megatron_astro.ops`: what each operation uses on this machine, and the reason where it is not the compiled kernel."""

import sys

import torch

from megatron_astro.ops.report import report

sys.stdout.write(report(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
