"""What is built at each layout, loaded from a converted checkpoint, computes what transformers does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.gguf import packaged_gguf
from megatron_astro.checkpoint.parity import LOGIT_TOLERANCE, probe_tokens
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

ROOT = Path(__file__).parents[2]
SEQUENCES, LENGTH = (
    4,
    48,
)  # as many micro-batches as the deepest pipeline has stages; past the context that RoPE is stretched from
SHAPES = ("llama-2-7b", "llama-3.1-8b", "llama-3.2-1b")  # a head of its own for each query, shared ones, tied embeddings
SOME = ((1, 4, 2), (2, 2, 1), (2, 2, 2), (4, 1, 1))  # tp, pp, vpp
ALL = tuple((tp, pp, vpp) for tp in (1, 2, 4) for pp in (1, 2, 4) for vpp in (1, 2) if pp > 1 or vpp == 1)


@pytest.fixture(scope="module")
def reference(official_llama, tmp_path_factory):
    """By family: the Megatron checkpoint, a file of tokens, and transformers' float32 logits on them."""
    root, made = tmp_path_factory.mktemp("reference"), {}

    def of(name):
        if name not in made:
            made[name] = convert_and_compute(official_llama(name), root / name)
        return made[name]

    return of


def convert_and_compute(folder, root, tokens=None):
    from transformers import LlamaForCausalLM

    root.mkdir()
    convert(folder, root / "megatron", verification="headers")
    if tokens is None:
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        tokens = torch.randint(0, vocabulary, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(5))
    torch.save(tokens, root / "tokens.pt")
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    return root / "megatron", root / "tokens.pt", logits


def divides(config, tp, pp, vpp):
    heads, layers = config["num_key_value_heads"], config["num_hidden_layers"]
    return heads % tp == 0 and layers % (pp * vpp) == 0


def largest_differences(reference, names_and_layouts, folder):
    """Compute every model at its layouts, one world of ranks after the other; by (name, layout) how far its logits are off."""
    worlds = {}
    for name, (tp, pp, vpp) in names_and_layouts:
        checkpoint, tokens, _ = reference(name)
        target = folder / f"{name}-{tp}-{pp}-{vpp}.pt"
        job = {"vpp": vpp, "folder": str(checkpoint), "tokens": str(tokens), "target": str(target)}
        worlds.setdefault((tp, pp), {"tp": tp, "pp": pp, "jobs": []})["jobs"].append(job)
    (folder / "jobs.json").write_text(json.dumps(list(worlds.values())))
    program = [sys.executable, str(Path(__file__).with_name("megatron_world.py")), str(folder / "jobs.json")]
    done = subprocess.run(
        program, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return {
        (name, layout): float((torch.load(folder / f"{'-'.join(map(str, (name, *layout)))}.pt") - reference(name)[2]).abs().max())
        for name, layout in names_and_layouts
    }


def test_layouts_compute_what_transformers_does(reference, tmp_path):
    differences = largest_differences(reference, [(name, layout) for layout in SOME for name in SHAPES], tmp_path)
    assert len(differences) == 12
    assert {key: number for key, number in differences.items() if not number <= LOGIT_TOLERANCE} == {}


@pytest.mark.slow
def test_every_family_at_every_layout_that_divides_it(reference, official_llama, tmp_path):
    from_json = {name: json.loads((official_llama(name) / "config.json").read_text()) for name in official_llama.names}
    wanted = [(name, layout) for layout in ALL for name, config in from_json.items() if divides(config, *layout)]
    differences = largest_differences(reference, wanted, tmp_path)
    assert len(differences) == 110
    assert {name for name, _ in differences} == from_json.keys()
    assert {layout for _, layout in differences} == set(ALL)
    assert {key: number for key, number in differences.items() if not number <= LOGIT_TOLERANCE} == {}


@pytest.mark.slow
def test_the_real_smollm2_in_stages_and_in_slices(tmp_path):
    """30 layers and 3 key/value heads: two stages or three slices. The text is that of `parity.py`, which says why."""
    try:
        path = packaged_gguf()
    except CheckpointError as error:
        pytest.skip(str(error))
    convert(path, tmp_path / "hf")
    sizes = LlamaSizes.from_hf_config(json.loads((tmp_path / "hf/config.json").read_text()))
    made = convert_and_compute(tmp_path / "hf", tmp_path / "reference", torch.tensor([probe_tokens(tmp_path / "hf", sizes)]))
    layouts = ((1, 2, 1), (3, 1, 1))
    differences = largest_differences({"smollm2": made}.get, [("smollm2", layout) for layout in layouts], tmp_path)
    assert {key: number for key, number in differences.items() if not number <= LOGIT_TOLERANCE} == {}
