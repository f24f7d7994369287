"""Worlds of megatron-core ranks on one machine, started by tests as `megatron_world.py JOBS.json`.

JOBS.json is a list of {"tp", "pp", "jobs": [{"vpp", "format", "folder", "tokens", "target"}, ...]}. torch and megatron-core are imported
once; the ranks of each world are forked from there, before any tensor is made, and do all its jobs. A job loads a checkpoint into this
layout's chunks and runs sequences through megatron-core's own pipeline schedule, one a micro-batch; the logits [b, s, v] go to `target`.
The format "distributed" is loaded by megatron-core into our model, "legacy" (written with the local layer spec's names) by PyTorch into
stock megatron-core's own GPTModel.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_astro.config.run import ParallelConfig
from megatron_astro.model import cpu_support
from megatron_astro.model.build import build_chunks
from megatron_astro.model.rope import inverse_frequencies
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
            plan = make_plan(ParallelConfig(tp=tp, pp=pp, vpp=job["vpp"]), ranks, num_layers=sizes.num_layers, **heads)
            prepare = {"distributed": our_chunks, "legacy": stock_chunks}[job["format"]]
            logits = forward(prepare(sizes, plan, Path(job["folder"])), torch.load(job["tokens"]), sizes)
            if logits is not None:
                torch.save(logits, job["target"])


def our_chunks(sizes, plan, folder):
    """Our model, loaded from a distributed checkpoint, which must hold exactly what these chunks expect."""
    chunks = build_chunks(sizes, plan)
    for chunk in chunks:
        spoil(chunk)
    state = {f"model{number}": chunk.sharded_state_dict() for number, chunk in enumerate(chunks)}
    loaded = dist_checkpointing.load(state, str(folder), strict="raise_all")
    for number, chunk in enumerate(chunks):
        chunk.load_state_dict(loaded[f"model{number}"])
        assert not any(parameter.isnan().any() for parameter in chunk.parameters())
    return chunks


def stock_chunks(sizes, plan, folder):
    """What a user of plain megatron-core builds at this layout, loaded strictly from this rank's file of a legacy checkpoint."""
    tp_rank, pp_rank = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_pipeline_model_parallel_rank()
    name = f"mp_rank_{tp_rank:02}" if plan.pp == 1 else f"mp_rank_{tp_rank:02}_{pp_rank:03}"
    with torch.serialization.safe_globals([argparse.Namespace]):
        file = torch.load(folder / "release" / name / "model_optim_rng.pt", weights_only=True)
    cpu_support.install()
    model_parallel_cuda_manual_seed(1)
    chunks = []
    for number in range(plan.vpp):
        chunk = stock_model(sizes, plan, pp_rank, number, file["args"].padded_vocab_size)
        spoil(chunk)
        chunk.load_state_dict(file["model" if plan.vpp == 1 else f"model{number}"], strict=True)
        assert not any(parameter.isnan().any() for parameter in chunk.parameters())
        chunks.append(chunk)
    return chunks


def stock_model(sizes, plan, pp_rank, number, rows):
    config = TransformerConfig(
        num_layers=sizes.num_layers, hidden_size=sizes.hidden_size, ffn_hidden_size=sizes.ffn_size, kv_channels=sizes.head_size,
        num_attention_heads=sizes.num_heads, num_query_groups=sizes.num_kv_heads, normalization="RMSNorm", gated_linear_unit=True,
        activation_func=torch.nn.functional.silu, add_bias_linear=False, bias_activation_fusion=False, bias_dropout_fusion=False,
        masked_softmax_fusion=False, gradient_accumulation_fusion=False, use_cpu_initialization=True, perform_initialization=False,
        tensor_model_parallel_size=plan.tp, pipeline_model_parallel_size=plan.pp, pipeline_dtype=torch.float32,
        virtual_pipeline_model_parallel_size=plan.vpp if plan.vpp > 1 else None, layernorm_epsilon=sizes.norm_epsilon,
        attention_dropout=0.0, hidden_dropout=0.0,
    )  # fmt: skip
    model = GPTModel(
        config, get_gpt_layer_local_spec(normalization="RMSNorm"), vocab_size=rows, max_sequence_length=sizes.max_positions,
        pre_process=pp_rank == 0 and number == 0, post_process=pp_rank == plan.pp - 1 and number == plan.vpp - 1,
        position_embedding_type="rope", rotary_base=sizes.rope_theta, share_embeddings_and_output_weights=sizes.tied_embeddings,
        vp_stage=number if plan.vpp > 1 else None,
    )  # fmt: skip
    model.rotary_pos_emb.inv_freq = inverse_frequencies(sizes)  # megatron-core's own knows only the published context of 8192
    return model


def spoil(model):
    """Make every number that is not loaded show."""
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))


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
    padding = whole[..., sizes.vocabulary_size :]
    assert padding.isneginf().all() or not padding.any()  # ours hides it, stock megatron-core multiplies with its zeros
    return whole[..., : sizes.vocabulary_size] if parallel_state.get_tensor_model_parallel_rank() == 0 else None


def main(path):
    torch.set_num_threads(1)
    for world in json.loads(Path(path).read_text()):
        codes = run_world(world)
        if any(codes):
            sys.exit(f"tp {world['tp']} x pp {world['pp']}: ranks ended with {codes}")


if __name__ == "__main__":
    main(sys.argv[1])
