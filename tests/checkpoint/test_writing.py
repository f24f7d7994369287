import pytest

from megatron_astro.checkpoint.certify import digest_tensor
from megatron_astro.checkpoint.conversion_plan import WRITTEN_READERS, plan_conversion
from megatron_astro.checkpoint.journal import partial_folder, resumable_folder
from megatron_astro.checkpoint.names import named_shapes
from megatron_astro.checkpoint.writing import bytes_to_write, write_and_read_back


@pytest.fixture
def plan(gqa, tmp_path):
    def make(**options):
        chosen = {
            "target_format": "huggingface",
            "dtype": None,
            "verification": "readback",
            "max_ram": 2**34,
            "shard_bytes": 20_000,
        }
        return plan_conversion(gqa, tmp_path / "target", **{**chosen, **options})

    return make


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"vocabulary_size": 1000}, {"target_format": "megatron"}])
def test_what_was_read_back_is_what_the_files_hold(plan, options):
    made = plan(**options)
    shapes = named_shapes(made.reader.sizes)
    with resumable_folder(made.target, made.task(), made.shards) as journal:
        found = write_and_read_back(made, journal, None, lambda _: None)
    reader = WRITTEN_READERS[made.target_format](made.target)
    assert {digest.name: digest for digest in found.digests} == {
        name: digest_tensor(reader, name, shape) for name, shape in shapes.items()
    }


def test_shards_of_an_earlier_run_are_read_back_too(plan, gqa):
    made = plan()
    roots = []

    def write_and_stop():
        with resumable_folder(made.target, made.task(), made.shards) as journal:
            found = write_and_read_back(made, journal, None, lambda _: None)
            roots.append((len(journal.finished), {digest.name: digest.data for digest in found.digests}))
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_and_stop()
        for path in partial_folder(made.target).iterdir():  # what `finish` wrote
            if path.name not in {"conversion.jsonl", *(file for shard in made.shards for file in shard.files)}:
                path.unlink()
    assert roots[0] == roots[1]
    assert roots[0][0] == len(made.shards) > 1


def write(plan, before_group, counted):
    """Write what is missing; how many bytes that was to be."""
    with resumable_folder(plan.target, plan.task(), plan.shards) as journal:
        left = bytes_to_write(plan, journal)
        write_and_read_back(plan, journal, before_group, counted.append)
    return left


def test_only_unfinished_shards_are_counted_and_written(plan):
    made, begun = plan(), []

    def stop(group):
        begun.append(group)
        if group.layer == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(made, stop, [])
    counted = []
    left = write(made, None, counted)
    assert 0 < left < made.num_bytes
    assert sum(counted) == left
