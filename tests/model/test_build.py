"""What is built at each layout, loaded from a converted checkpoint, computes what transformers does."""

import json
from collections import defaultdict

import pytest
import torch

from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.gguf import packaged_gguf
from megatron_astro.checkpoint.parity import LOGIT_TOLERANCE, hugging_face_logits, probe_tokens
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes

SHAPES = ("llama-2-7b", "llama-3.1-8b", "llama-3.2-1b")  # a head of its own for each query, shared ones, tied embeddings
SOME = ((1, 4, 2), (2, 2, 1), (2, 2, 2), (4, 1, 1))  # tp, pp, vpp
ALL = tuple((tp, pp, vpp) for tp in (1, 2, 4) for pp in (1, 2, 4) for vpp in (1, 2) if pp > 1 or vpp == 1)


@pytest.fixture(scope="module")
def checkpoint(official_llama, tmp_path_factory):
    """A family's Megatron checkpoint, converted when first asked for."""
    root = tmp_path_factory.mktemp("megatron")

    def folder(name):
        if not (root / name).exists():
            convert(official_llama(name), root / name, verification="headers")
        return root / name

    return folder


@pytest.fixture
def differences(checkpoint, logits_of, in_worlds, tmp_path):
    """By (name, (tp, pp, vpp)), how far the logits of a model at a layout are from those of transformers at most."""

    def measure(wanted):
        jobs = defaultdict(list)
        for name, (tp, pp, vpp) in wanted:
            target = tmp_path / f"{name}-{tp}-{pp}-{vpp}.pt"
            tokens, _ = logits_of(name)
            job = {"vpp": vpp, "format": "distributed", "folder": checkpoint(name), "tokens": tokens, "target": target}
            jobs[tp, pp].append(job)
        in_worlds(jobs, tmp_path)
        found = {key: torch.load(tmp_path / f"{key[0]}-{'-'.join(map(str, key[1]))}.pt") for key in wanted}
        return {key: float((logits - logits_of(key[0])[1]).abs().max()) for key, logits in found.items()}

    return measure


def above_limit(found):
    return {key: number for key, number in found.items() if not number <= LOGIT_TOLERANCE}


def test_layouts_compute_what_transformers_does(differences):
    found = differences([(name, layout) for layout in SOME for name in SHAPES])
    assert len(found) == 12
    assert above_limit(found) == {}


@pytest.mark.slow
def test_every_family_at_every_layout_that_divides_it(differences, official_llama):
    configs = {name: json.loads((official_llama(name) / "config.json").read_text()) for name in official_llama.names}
    wanted = [
        (name, (tp, pp, vpp))
        for tp, pp, vpp in ALL
        for name, config in configs.items()
        if config["num_key_value_heads"] % tp == 0 and config["num_hidden_layers"] % (pp * vpp) == 0
    ]
    found = differences(wanted)
    assert len(found) == 110
    assert {name for name, _ in found} == configs.keys()
    assert {layout for _, layout in found} == set(ALL)
    assert above_limit(found) == {}


@pytest.mark.slow
def test_the_real_smollm2_in_stages_and_in_slices(in_worlds, tmp_path):
    """30 layers and 3 key/value heads: two stages or three slices. The text is that of `parity.py`, which says why."""
    try:
        path = packaged_gguf()
    except CheckpointError as error:
        pytest.skip(str(error))
    convert(path, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "megatron", verification="headers")
    sizes = LlamaSizes.from_hf_config(json.loads((tmp_path / "hf/config.json").read_text()))
    tokens = probe_tokens(tmp_path / "hf", sizes)
    torch.save(torch.tensor([tokens]), tmp_path / "tokens.pt")
    job = {"vpp": 1, "format": "distributed", "folder": tmp_path / "megatron", "tokens": tmp_path / "tokens.pt"}
    in_worlds({(1, 2): [job | {"target": tmp_path / "pp2.pt"}], (3, 1): [job | {"target": tmp_path / "tp3.pt"}]}, tmp_path)
    wanted = hugging_face_logits(tmp_path / "hf", tokens, sizes, None)
    found = {layout: float((torch.load(tmp_path / f"{layout}.pt")[0] - wanted).abs().max()) for layout in ("pp2", "tp3")}
    assert above_limit(found) == {}
