"""Continual pretraining. In: a RunConfig, a Megatron checkpoint, datasets. Out: a run folder. Open `loop.py` first, then `step.py`."""
