"""Continue one prompt with each of two Hugging Face folders, by plain `transformers`: `generate.py PROMPT BEFORE AFTER OUTPUT.json`."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

NUM_NEW_TOKENS = 32


def continue_prompt(folder: Path, prompt: str) -> str:
    """Greedy continuation of the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=NUM_NEW_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def main() -> None:
    """Write both continuations and print them."""
    logging.disable_progress_bar()
    prompt, before, after, output = sys.argv[1:]
    texts = {"prompt": prompt, "before": continue_prompt(Path(before), prompt), "after": continue_prompt(Path(after), prompt)}
    Path(output).write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
    print(f"  before: {prompt}{texts['before']!r}\n  after:  {prompt}{texts['after']!r}")


if __name__ == "__main__":
    main()
