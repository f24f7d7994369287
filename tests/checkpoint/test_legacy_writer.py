import shutil
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from megatron_astro.checkpoint.certify import certify
from megatron_astro.checkpoint.conversion_plan import detect_format, open_checkpoint, plan_conversion
from megatron_astro.checkpoint.convert import convert
from megatron_astro.checkpoint.memory_bound import DEFAULT_MAX_RAM
from megatron_astro.checkpoint.parity import LOGIT_TOLERANCE
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError, ConfigError, ParallelError

SHAPES = (
    "llama-2-7b",
    "llama-3-70b",
    "llama-3.2-1b",
)  # a head of its own for each query; shared ones, 501 tokens; tied embeddings
SOME = (
    RankLayout(),
    RankLayout(tp=4, layer_spec="local"),
    RankLayout(pp=4, vpp=2),
    RankLayout(tp=2, pp=2, vpp=2, layer_spec="local"),
)
ALL = tuple(RankLayout(tp=tp, pp=pp, vpp=vpp) for tp in (1, 2, 4) for pp in (1, 2, 4) for vpp in (1, 2) if pp > 1 or vpp == 1)


def to_legacy(source, target, layout, **options):
    return convert(source, target, target_format="megatron-legacy", layout=layout, **{"verification": "readback", **options})


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("certificate.json", "conversion.jsonl")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_in_stock_megatron(names, layouts, official_llama, logits_of, in_worlds, folder):
    jobs, targets = defaultdict(list), {}
    for name in names:
        for layout in layouts:
            made = folder / f"{name}-{layout.tp}-{layout.pp}-{layout.vpp}"
            to_legacy(official_llama(name), made, replace(layout, layer_spec="local"), dtype="float32", verification="headers")
            targets[name, layout] = made.with_suffix(".pt")
            job = {"vpp": layout.vpp, "format": "legacy", "folder": made, "tokens": logits_of(name)[0]}
            jobs[layout.tp, layout.pp].append(job | {"target": targets[name, layout]})
    in_worlds(jobs, folder)
    found = {key: float((torch.load(path) - logits_of(key[0])[1]).abs().max()) for key, path in targets.items()}
    assert len(found) == len(names) * len(layouts)
    assert {key: number for key, number in found.items() if not number <= LOGIT_TOLERANCE} == {}


def test_stock_megatron_core_loads_it_strictly_and_computes_what_transformers_does(
    official_llama, logits_of, in_worlds, tmp_path
):
    check_in_stock_megatron(SHAPES, SOME[2:], official_llama, logits_of, in_worlds, tmp_path)


@pytest.mark.slow
def test_stock_megatron_core_at_every_layout(official_llama, logits_of, in_worlds, tmp_path):
    check_in_stock_megatron(SHAPES[1:], ALL, official_llama, logits_of, in_worlds, tmp_path)


@pytest.mark.parametrize("layout", SOME, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_the_same_root_at_every_layout(official_llama, tmp_path, name, layout):
    done = to_legacy(official_llama(name), tmp_path / "legacy", layout)
    assert detect_format(tmp_path / "legacy") == "megatron-legacy"
    root = certify(open_checkpoint(official_llama(name))).root
    assert (done.certificate.root, certify(open_checkpoint(tmp_path / "legacy")).root) == (root, root)
    names = {path.parent.name for path in tmp_path.glob("legacy/release/*/model_optim_rng.pt")}
    assert len(names) == layout.tp * layout.pp


@pytest.mark.slow
def test_every_family_at_every_layout_that_divides_it(official_llama, tmp_path):
    """What is written is read back from the ranks' files and has the root of the source."""
    checked = 0
    for name in official_llama.names:
        sizes = open_checkpoint(official_llama(name)).sizes
        for layout in ALL:
            if sizes.num_kv_heads % layout.tp or sizes.num_layers % (layout.pp * layout.vpp):
                continue
            target = tmp_path / "legacy"
            written = to_legacy(official_llama(name), target, layout).certificate
            assert written.root == written.source.root, (name, layout)
            shutil.rmtree(target)
            checked += 1
    assert checked == 110


def test_a_layout_becomes_another_and_all_formats_come_back_the_same(official_llama, tmp_path):
    """HF -> tp4 pp2 -> tp2 pp4 vpp2 -> torch_dist -> tp4 pp2, whose every byte is that of the first -> HF."""
    source, wide, deep = official_llama("llama-3-70b"), RankLayout(tp=4, pp=2), RankLayout(tp=2, pp=4, vpp=2)
    steps = (("wide", wide), ("deep", deep), ("distributed", RankLayout()), ("again", wide), ("hf", RankLayout()))
    here = source
    for name, layout in steps:
        target_format = {"distributed": "megatron", "hf": "huggingface"}.get(name, "megatron-legacy")
        convert(here, tmp_path / name, target_format=target_format, layout=layout, verification="readback")
        here = tmp_path / name
    assert contents(tmp_path / "again") == contents(tmp_path / "wide")
    assert certify(open_checkpoint(here)).root == certify(open_checkpoint(source)).root
    assert (here / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_logits_prove_both_ways(official_llama, tmp_path):
    there = to_legacy(official_llama("llama-3.2-1b"), tmp_path / "legacy", RankLayout(tp=2, pp=2), verification="logits")
    back = convert(tmp_path / "legacy", tmp_path / "hf", verification="logits")
    assert max(there.parity.max_abs_logit_difference, back.parity.max_abs_logit_difference) <= LOGIT_TOLERANCE
    assert "huggingface -> megatron-legacy" in there.summary()


def test_a_vocabulary_is_padded_and_loses_exactly_its_padding(official_llama, tmp_path, weights):
    """501 tokens in 4 x 128 rows, those after the last token zeros; and they can grow."""
    to_legacy(official_llama("llama-3-70b"), tmp_path / "legacy", RankLayout(tp=4))
    paths = sorted(tmp_path.glob("legacy/release/*/model_optim_rng.pt"))
    ranks = [torch.load(path, weights_only=False)["model"] for path in paths]
    wanted = weights(official_llama("llama-3-70b"))
    for own, name in (
        ("embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        ("output_layer.weight", "lm_head.weight"),
    ):
        whole = torch.cat([rank[own] for rank in ranks])
        assert whole.shape[0] == 512
        assert torch.equal(whole[:501], wanted[name])
        assert not whole[501:].any()
    convert(tmp_path / "legacy", tmp_path / "grown", vocabulary_size=510, verification="readback")
    assert torch.equal(weights(tmp_path / "grown")["lm_head.weight"][:501], wanted["lm_head.weight"])


def test_a_kill_loses_a_stage_and_nothing_else(official_llama, tmp_path):
    """Killed in the last stage: the files of the others stay, the result has the same bytes."""
    source, layout = official_llama("llama-2-7b"), RankLayout(tp=2, pp=4)

    def kill(group):
        if group.layer == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_legacy(source, tmp_path / "legacy", layout, before_group=kill)
    with pytest.raises(CheckpointError, match="unfinished conversion"):
        detect_format(tmp_path / "legacy.partial")
    with pytest.raises(ConfigError, match="left from another conversion"):
        to_legacy(source, tmp_path / "legacy", RankLayout(tp=2, pp=4, vpp=2))
    again = []
    to_legacy(source, tmp_path / "legacy", layout, before_group=again.append)
    assert 0 < len(again) < 3 + 8 * 6
    to_legacy(source, tmp_path / "in_one_go", layout)
    assert contents(tmp_path / "legacy") == contents(tmp_path / "in_one_go")


def test_the_archive_is_sound_for_other_programs(official_llama, tmp_path):
    import zipfile

    to_legacy(official_llama("llama-3.2-1b"), tmp_path / "legacy", RankLayout(pp=2))
    for path in tmp_path.glob("legacy/release/*/model_optim_rng.pt"):
        assert zipfile.ZipFile(path).testzip() is None  # reads every record and compares its checksum


def test_a_dry_run_tells_the_layout(official_llama, tmp_path):
    options = {
        "target_format": "megatron-legacy",
        "dtype": None,
        "verification": "auto",
        "max_ram": DEFAULT_MAX_RAM,
        "shard_bytes": 10**9,
    }
    plan = plan_conversion(official_llama("llama-2-7b"), tmp_path / "target", layout=RankLayout(tp=2, pp=4, vpp=2), **options)
    assert "(megatron-legacy for tp 2 x pp 4 x vpp 2); weight files: 8\n" in plan.summary()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (RankLayout(tp=3), "8 attention heads are not divisible by parallel.tp = 3"),
        (RankLayout(pp=3), "8 layers are not divisible by parallel.pp = 3"),
        (RankLayout(pp=4, vpp=3), "a pipeline stage of 2 layers cannot be cut into vpp = 3 chunks"),
    ],
)
def test_layouts_that_do_not_divide(official_llama, tmp_path, layout, words):
    with pytest.raises(ParallelError, match=words):
        to_legacy(official_llama("llama-2-7b"), tmp_path / "target", layout)
    assert not list(tmp_path.iterdir())


def test_a_layout_is_only_for_the_legacy_format(official_llama, tmp_path):
    with pytest.raises(ConfigError, match=r"^--tp 2 is for --format megatron-legacy alone"):
        convert(official_llama("llama-2-7b"), tmp_path / "target", layout=RankLayout(tp=2))
    with pytest.raises(ConfigError, match="config_from is for legacy"):
        convert(official_llama("llama-2-7b"), tmp_path / "target", config_from=tmp_path)


def test_a_scaling_that_megatrons_options_cannot_say_is_told(official_llama, tmp_path, caplog):
    to_legacy(official_llama("llama-3.1-8b"), tmp_path / "legacy", RankLayout(tp=2), verification="headers")
    assert caplog.text.count("is not what --use-rope-scaling of Megatron's scripts means") == 1


def test_a_source_may_be_used_after_its_folder_moved(official_llama, tmp_path):
    to_legacy(official_llama("llama-2-7b"), tmp_path / "legacy", RankLayout(tp=2, pp=2))
    shutil.move(tmp_path / "legacy", tmp_path / "moved")
    assert certify(open_checkpoint(tmp_path / "moved" / "release")).root == certify(open_checkpoint(tmp_path / "moved")).root
