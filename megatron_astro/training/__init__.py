"""Continual pretraining. In: a RunConfig, a Hugging Face folder or Megatron checkpoint, datasets. Out: a run folder.

Open `loop.py` first, then `step.py`; `start.py` is what a run begins from.
"""
