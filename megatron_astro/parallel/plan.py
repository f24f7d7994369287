"""Who holds what: pure arithmetic from sizes and a layout to ranks, stages and micro-batches. No torch, no processes."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_astro.config.run import ParallelConfig
from megatron_astro.errors import ParallelError


@dataclass(frozen=True, kw_only=True)
class ParallelPlan:
    """A layout that was checked: `world_size = tp * pp * dp`; each pipeline stage holds its layers in `vpp` chunks of equal length."""

    world_size: int
    tp: int
    pp: int
    dp: int
    sequence_parallel: bool
    layers_per_stage: tuple[int, ...]
    vpp: int = 1

    def num_microbatches(self, global_batch_size: int, micro_batch_size: int) -> int:
        """Forward passes per rank and optimizer step; ParallelError unless the batch divides evenly, also over interleaved stages."""
        samples_at_once = micro_batch_size * self.dp
        if global_batch_size % samples_at_once:
            raise ParallelError(
                f"training.global_batch_size {global_batch_size} is not divisible by training.micro_batch_size x data-parallel ranks "
                f"= {micro_batch_size} x {self.dp}; make it a multiple of {samples_at_once}"
            )
        num_microbatches = global_batch_size // samples_at_once
        if num_microbatches % self.microbatch_multiple:
            raise ParallelError(
                f"training.global_batch_size {global_batch_size} gives each data-parallel rank {num_microbatches} micro-batches, which is "
                f"no multiple of parallel.pp = {self.pp}, as parallel.vpp = {self.vpp} needs: chunks take turns after every {self.pp}; "
                f"make it a multiple of {samples_at_once * self.pp}"
            )
        return num_microbatches

    @property
    def microbatch_multiple(self) -> int:
        """What the number of micro-batches must be a multiple of: interleaved stages pass on groups of as many as there are stages."""
        return self.pp if self.vpp > 1 else 1


def make_plan(config: ParallelConfig, world_size: int, *, num_layers: int, num_heads: int, num_kv_heads: int) -> ParallelPlan:
    """Check a layout against the number of ranks and the model; ParallelError names the first thing that does not divide."""
    require_divisible_heads(config.tp, num_heads=num_heads, num_kv_heads=num_kv_heads)
    model_ranks = config.tp * config.pp
    if world_size % model_ranks:
        raise ParallelError(
            f"{world_size} ranks cannot be split into parallel.tp x parallel.pp = {config.tp} x {config.pp}; "
            f"start a multiple of {model_ranks} ranks or change the layout"
        )
    if config.sequence_parallel and config.tp == 1:
        raise ParallelError(
            "parallel.sequence_parallel is true but parallel.tp is 1; it splits work between tensor-parallel ranks"
        )
    layers_per_stage = split_layers(num_layers, config.pp, config.first_stage_layers)
    require_divisible_chunks(layers_per_stage, config.vpp)
    return ParallelPlan(
        world_size=world_size,
        tp=config.tp,
        pp=config.pp,
        dp=world_size // model_ranks,
        sequence_parallel=config.sequence_parallel,
        layers_per_stage=layers_per_stage,
        vpp=config.vpp,
    )


def require_divisible_heads(tp: int, *, num_heads: int, num_kv_heads: int) -> None:
    """ParallelError unless tensor-parallel ranks can share the heads evenly."""
    for name, heads in (("attention heads", num_heads), ("key/value heads", num_kv_heads)):
        if heads % tp:
            raise ParallelError(
                f"the model's {heads} {name} are not divisible by parallel.tp = {tp}; "
                f"choose a tp that divides {heads}: {_divisors(num_heads, num_kv_heads)}"
            )


def require_divisible_chunks(layers_per_stage: Sequence[int], vpp: int) -> None:
    """ParallelError unless every pipeline stage can cut its layers into `vpp` chunks of equal length."""
    if vpp > 1 and len(layers_per_stage) == 1:
        raise ParallelError(f"vpp = {vpp} needs more than one pipeline stage; chunks of one stage would follow each other anyway")
    for layers in layers_per_stage:
        if layers % vpp:
            raise ParallelError(
                f"a pipeline stage of {layers} layers cannot be cut into vpp = {vpp} chunks of equal length; choose another vpp or pp"
            )


def chunk_layers(layers_per_stage: Sequence[int], vpp: int) -> tuple[tuple[range, ...], ...]:
    """Which layers each stage's `vpp` chunks of equal length hold, `[stage][chunk]`."""
    return number_layers([[layers // vpp] * vpp for layers in layers_per_stage])


def number_layers(counts: Sequence[Sequence[int]]) -> tuple[tuple[range, ...], ...]:
    """Which layers chunks of these lengths hold, `[stage][chunk]`: a token passes chunk 0 of all stages, then chunk 1 of all, and so on."""
    stages: list[list[range]] = [[] for _ in counts]
    first = 0
    for lengths in zip(*counts, strict=True):
        for stage, length in zip(stages, lengths, strict=True):
            stage.append(range(first, first + length))
            first += length
    return tuple(map(tuple, stages))


def padded_vocabulary(vocabulary_size: int, tp: int) -> int:
    """Rows of an embedding that `tp` ranks share evenly: the vocabulary and what is missing to a multiple of tp."""
    return -(-vocabulary_size // tp) * tp


def split_layers(num_layers: int, pp: int, first_stage_layers: int) -> tuple[int, ...]:
    """Layers on each pipeline stage: evenly, or `first_stage_layers` on the first and the rest evenly."""
    if first_stage_layers == 0:
        if num_layers % pp:
            raise ParallelError(
                f"the model's {num_layers} layers are not divisible by parallel.pp = {pp}; choose another pp or set "
                "parallel.first_stage_layers"
            )
        return (num_layers // pp,) * pp
    remaining = num_layers - first_stage_layers
    if pp == 1 or remaining < pp - 1 or remaining % (pp - 1):
        raise ParallelError(
            f"parallel.first_stage_layers = {first_stage_layers} leaves {remaining} of {num_layers} layers for the other {pp - 1} "
            "pipeline stages, which cannot share them evenly; choose another number or 0"
        )
    return (first_stage_layers, *(remaining // (pp - 1),) * (pp - 1))


def _divisors(num_heads: int, num_kv_heads: int) -> str:
    return ", ".join(str(tp) for tp in range(1, num_kv_heads + 1) if num_heads % tp == 0 and num_kv_heads % tp == 0)
