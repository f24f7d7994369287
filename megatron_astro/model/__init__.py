"""LLaMA on megatron.core. In: sizes read from a Hugging Face config.json, and a plan. Out: this rank's stage. Open `build.py` first."""
