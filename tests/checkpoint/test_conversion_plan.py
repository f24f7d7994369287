import shutil

import pytest

from megatron_astro.checkpoint import conversion_plan
from megatron_astro.checkpoint.conversion_plan import plan_conversion
from megatron_astro.checkpoint.memory_bound import DEFAULT_MAX_RAM
from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import CheckpointError, ConfigError

OPTIONS = {"target_format": None, "dtype": None, "verification": "auto", "max_ram": DEFAULT_MAX_RAM, "shard_bytes": 10**9}


def plan(source, target, **changes):
    return plan_conversion(source, target, **{**OPTIONS, **changes})


def test_a_plan_counts_and_writes_nothing(gqa, tmp_path):
    made = plan(gqa, tmp_path / "new/target", dtype="bfloat16", shard_bytes=20_000)
    assert (made.target_format, made.num_tensors, made.num_bytes) == ("megatron", 39, 2 * made.num_parameters)
    assert [group for shard in made.shards for group in shard.groups][-1].names == ("lm_head.weight",)
    assert len(made.shards) > 2
    for words in (
        f"source: {gqa} (huggingface)",
        "39 with",
        f"{made.num_bytes} bytes to write as torch.bfloat16",
        "4096 MiB allowed",
    ):
        assert words in made.summary()
    assert not list(tmp_path.iterdir())


def test_logits_are_the_proof_only_where_they_fit(gqa, tmp_path, monkeypatch):
    assert plan(gqa, tmp_path / "target").proof == "logits"
    monkeypatch.setattr(conversion_plan, "logits_check_bytes", lambda _: DEFAULT_MAX_RAM + 1)
    made = plan(gqa, tmp_path / "target")
    assert made.proof == "readback"
    assert "comparing logits takes about 4.0 GiB, max_ram is 4.0 GiB" in made.proof_reason
    with pytest.raises(ConfigError, match="logits cannot be compared"):
        plan(gqa, tmp_path / "target", verification="logits")
    assert plan(gqa, tmp_path / "target", verification="headers").proof == "headers"


def test_a_bound_below_the_program_is_refused(gqa, tmp_path):
    with pytest.raises(ConfigError, match=r"max_ram is 1000 bytes, but \d+ are needed"):
        plan(gqa, tmp_path / "target", max_ram=1000)


@pytest.mark.parametrize("shard_bytes", [0, 2, 999])
def test_a_file_size_without_its_unit_is_refused(gqa, tmp_path, shard_bytes):
    with pytest.raises(ConfigError, match=rf"max_shard is {shard_bytes} bytes, .* such as 2GB"):
        plan(gqa, tmp_path / "target", shard_bytes=shard_bytes)


def test_new_rows_without_a_larger_vocabulary_are_refused(gqa, tmp_path):
    with pytest.raises(ConfigError, match="new_rows is 'zeros', but no row is added; give --vocabulary-size too"):
        plan(gqa, tmp_path / "target", new_rows="zeros")


def test_a_layout_names_its_options_and_its_format(gqa, tmp_path):
    words = r"^--tp 2, --layer-spec local is for --format megatron-legacy alone; what is written here, --format megatron, loads"
    with pytest.raises(ConfigError, match=words):
        plan(gqa, tmp_path / "target", layout=RankLayout(tp=2, layer_spec="local"))


def test_an_unfinished_targets_bytes_count_as_free(gqa, tmp_path, monkeypatch):
    needed = plan(gqa, tmp_path / "target").num_bytes + conversion_plan.SPARE_BYTES
    monkeypatch.setattr(conversion_plan.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, needed - 2**16))
    with pytest.raises(CheckpointError, match="GB free"):
        plan(gqa, tmp_path / "target")
    (tmp_path / "target.partial/mp_rank_00").mkdir(parents=True)
    (tmp_path / "target.partial/mp_rank_00/whole").write_bytes(b"1" * 2**16)
    with (tmp_path / "target.partial/begun").open("wb") as begun:
        begun.truncate(2**30)  # has its length, and nothing of it on the disk
    assert plan(gqa, tmp_path / "target").free_bytes == needed


def test_headers_are_checked_before_the_disk_and_the_target(sharded, tmp_path):
    source = shutil.copytree(sharded, tmp_path / "source")
    shard = next(source.glob("model-00002*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002.* is cut off inside"):
        plan(source, tmp_path / "target")
