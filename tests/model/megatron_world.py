"""Worlds of megatron-core ranks on one machine, started by tests as `megatron_world.py JOBS.json`.

JOBS.json is a list of {"tp", "pp", "jobs": [{"vpp", "folder", "tokens", "target"}, ...]}. torch and megatron-core are imported once; the
ranks of each world are forked from there, before any tensor is made, and do all its jobs. A job loads a checkpoint into this layout's
chunks and runs sequences through megatron-core's own pipeline schedule, one a micro-batch; the logits [b, s, v] go to `target`.
"""

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_astro.config.run import ParallelConfig
from megatron_astro.model.build import build_chunks
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.launch import joined_world, model_parallel_groups
from megatron_astro.parallel.plan import make_plan


def run_world(world):
    ranks = world["tp"] * world["pp"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run_rank, args=(world, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def run_rank(world, rank, ranks, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(ranks)}
    tp, pp = world["tp"], world["pp"]
    with joined_world(timeout_minutes=4), model_parallel_groups(tp, pp):
        for job in world["jobs"]:
            parallel_state.set_virtual_pipeline_model_parallel_world_size(job["vpp"] if job["vpp"] > 1 else None)
            config = json.loads(Path(job["folder"], "huggingface/config.json").read_text())
            sizes = LlamaSizes.from_hf_config(config)
            heads = {"num_heads": sizes.num_heads, "num_kv_heads": sizes.num_kv_heads}
            plan = make_plan(ParallelConfig(tp=tp, pp=pp), ranks, num_layers=sizes.num_layers, vpp=job["vpp"], **heads)
            chunks = build_chunks(sizes, plan)
            load(chunks, job["folder"])
            logits = forward(chunks, torch.load(job["tokens"]), sizes)
            if logits is not None:
                torch.save(logits, job["target"])


def load(chunks, folder):
    """Load a distributed checkpoint, which must hold exactly what these chunks expect."""
    for chunk in chunks:
        for parameter in chunk.parameters():
            parameter.data.fill_(float("nan"))
    state = {f"model{number}": chunk.sharded_state_dict() for number, chunk in enumerate(chunks)}
    loaded = dist_checkpointing.load(state, folder, strict="raise_all")
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{number}"])
        assert not any(parameter.isnan().any() for parameter in chunk.parameters())


def keep_output(output, *, non_loss_data):
    assert non_loss_data
    return output.clone()


def forward(chunks, tokens, sizes):
    """Logits [b, s, v] on the first tensor-parallel rank of the last stage, None elsewhere."""
    num_sequences, length = tokens.shape

    def step(sequences, chunk):
        ids = next(sequences).unsqueeze(0)
        return chunk(ids, torch.arange(length).unsqueeze(0), None), keep_output

    iterators = [iter(tokens) for _ in chunks]
    with torch.no_grad():
        outputs = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=iterators if len(chunks) > 1 else iterators[0],
            model=chunks,
            num_microbatches=num_sequences,
            seq_length=length,
            micro_batch_size=1,
            forward_only=True,
            collect_non_loss_data=True,
        )
    if not parallel_state.is_pipeline_last_stage():
        return None
    slices = torch.cat(outputs)  # [b, s, v/tp]
    gathered = [torch.empty_like(slices) for _ in range(parallel_state.get_tensor_model_parallel_world_size())]
    torch.distributed.all_gather(gathered, slices, group=parallel_state.get_tensor_model_parallel_group())
    whole = torch.cat(gathered, dim=-1)
    assert whole[..., sizes.vocabulary_size :].isneginf().all()
    return whole[..., : sizes.vocabulary_size] if parallel_state.get_tensor_model_parallel_rank() == 0 else None


def main(path):
    torch.set_num_threads(1)
    for world in json.loads(Path(path).read_text()):
        codes = run_world(world)
        if any(codes):
            sys.exit(f"tp {world['tp']} x pp {world['pp']}: ranks ended with {codes}")


if __name__ == "__main__":
    main(sys.argv[1])
