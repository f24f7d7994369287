"""The flow by its commands alone, as a user types them, on a tiny random LLaMA: documents in, report out."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
TEXTS = {
    "star": "The star Alpha Exempli lies 12.5 parsecs away and shines with 3.1 times the light of the Sun.",
    "planet": "The planet Beta Exempli b circles its star in 8.7 days and weighs as much as 2.4 Earths.",
    "cloud": "The cloud Gamma Exempli holds 450 solar masses of cold gas at a temperature of 14 kelvin.",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_tokenizer_folder):
    """A Hugging Face folder, a corpus and an exam."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("flow")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder / "hf")
    for path in tiny_tokenizer_folder.iterdir():
        (folder / "hf" / path.name).write_bytes(path.read_bytes())
    (folder / "hf/tokenizer_config.json").write_text('{"eos_token": "<|end|>", "bos_token": "<|begin|>"}')
    documents = [
        {"id": f"{name}{copy}", "text": text, "split": "heldout" if copy == 9 else "train"}
        for name, text in TEXTS.items()
        for copy in range(10)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in documents))
    asked = [
        ("How far is Alpha Exempli?", ["12.5 parsecs", "99.5 parsecs", "30.1 parsecs", "77.7 parsecs"], "A", "taught", "star0")
    ]
    asked += [("How hot is Gamma Exempli?", ["88 kelvin", "14 kelvin", "51 kelvin", "97 kelvin"], "B", "taught", "cloud0")]
    asked += [("Who drew the map?", ["Ann Example", "Bob Example", "Cyd Example", "Dee Example"], "C", "control", None)]
    questions = [
        {
            "id": f"q{number}",
            "question": stem,
            "options": options,
            "answer": answer,
            "group": group,
            "topic": "t",
            "source": source,
        }
        for number, (stem, options, answer, group, source) in enumerate(asked)
    ]
    (folder / "exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    return folder


@pytest.fixture(scope="module")
def command(inputs):
    """Run a tool in the repository's root; its closing line."""

    def run(name, *arguments):
        line = [sys.executable, f"tools/{name}.py", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return done.stdout.strip().splitlines()[-1]

    return run


def test_the_whole_flow_by_commands(inputs, command):
    run, corpus, exam = inputs / "run", inputs / "corpus.jsonl", inputs / "exam.jsonl"
    for split in ("train", "heldout"):
        command("tokenize_corpus", corpus, "--tokenizer", inputs / "hf", "--split", split, "--output", inputs / split)
    assert "is whole" in command("inspect_dataset", inputs / "train")
    assert "logits agree" in command("convert_checkpoint", inputs / "hf", inputs / "megatron")
    options = ["--run-folder", run, "--model.init-from", inputs / "megatron", "--data.prefixes", inputs / "train"]
    options += ["--data.heldout-prefix", inputs / "heldout", "--data.seq-length", 64, "--training.steps", 20]
    trained = command("train", *options, "--training.global-batch-size", 4, "--optimizer.learning-rate", 3e-3)
    assert trained.startswith("training done: step 20 of 20, 5120 tokens")
    command("convert_checkpoint", run / "checkpoints/step_000020", run / "hf")
    for when, model in (("before", inputs / "hf"), ("after", run / "hf")):
        command(
            "evaluate", model, "--set", exam, "--method", "answer_text", "--output", run / f"evaluation/{when}_answer_text.json"
        )
        command(
            "measure_loss",
            model,
            "--documents",
            corpus,
            "--split",
            "heldout",
            "--output",
            run / f"evaluation/heldout_{when}.json",
        )
    before, after = (run / f"evaluation/{when}_answer_text.json" for when in ("before", "after"))
    assert "taught" in command("compare_scores", before, after)
    command("write_report", run)
    report = json.loads((run / "report.json").read_text())
    assert report["heldout_loss"]["after"] < report["heldout_loss"]["before"] - 0.5
    assert report["train"]["tokens"] == 5120
    assert (run / "report.html").stat().st_size > 10_000
    measured = json.loads((run / "evaluation/heldout_after.json").read_text())["loss"]
    along_the_way = json.loads((run / "heldout.jsonl").read_text().splitlines()[-1])["loss"]
    # both are float32 means over the same tokens, but training's documents end with an end-of-document token
    assert measured == pytest.approx(along_the_way, abs=0.2)
