from megatron_astro.checkpoint.training_state import list_checkpoints, newest_checkpoint, remove_old_checkpoints


def test_checkpoints_are_ordered_by_step_not_by_name(tmp_path):
    for step in (999_999, 1_000_000, 5):
        (tmp_path / f"step_{step:06d}").mkdir()
    (tmp_path / "step_2000000.partial").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000005", "step_999999", "step_1000000"]
    assert newest_checkpoint(tmp_path).name == "step_1000000"
    remove_old_checkpoints(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_1000000"]
