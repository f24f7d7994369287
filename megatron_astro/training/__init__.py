"""Continual pretraining. In: a RunConfig, a Megatron checkpoint, indexed datasets. Out: a run folder. Open `loop.py` first, then `step.py`."""
