"""One rank of a little megatron-core world, started by the tests of this folder as `megatron_rank.py COMMAND FOLDER TARGET ...`
(any number of such triples, done one after the other).

`resave` loads a checkpoint into megatron-core's own GPTModel (local spec) at each layout the world allows and saves it again with
megatron-core's own `save`. `train` loads one into our model, makes an optimizer step and saves a training checkpoint; the weights then
lie in `weights.pt`. `slices` loads the Hugging Face folder `TARGET/hf` at each layout the world allows, notes which parameters are not
those that megatron-core loads from FOLDER, and exports the model to `TARGET/LAYOUT_DTYPE`. `logits` writes what our model computes when
tensor-parallel ranks share it.
"""

import json
import sys
from pathlib import Path

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_astro.config.run import OptimizerConfig, ParallelConfig
from megatron_astro.model import cpu_support
from megatron_astro.model.build import build_chunks, build_stage
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.launch import joined_world, model_parallel_groups
from megatron_astro.parallel.plan import make_plan

PADDED_TO = 8  # vocabulary rows are padded to a multiple of this, as Megatron training scripts do


def stock_model(sizes, *, tp, pp):
    """What a user of plain megatron-core builds for this LLaMA."""
    config = TransformerConfig(
        num_layers=sizes.num_layers, hidden_size=sizes.hidden_size, ffn_hidden_size=sizes.ffn_size, kv_channels=sizes.head_size,
        num_attention_heads=sizes.num_heads, num_query_groups=sizes.num_kv_heads, normalization="RMSNorm", gated_linear_unit=True,
        activation_func=torch.nn.functional.silu, add_bias_linear=False, bias_activation_fusion=False, bias_dropout_fusion=False,
        masked_softmax_fusion=False, gradient_accumulation_fusion=False, use_cpu_initialization=True, perform_initialization=False,
        tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, pipeline_dtype=torch.float32,
    )  # fmt: skip
    stage = parallel_state.get_pipeline_model_parallel_rank()
    return GPTModel(
        config, get_gpt_layer_local_spec(normalization="RMSNorm"), vocab_size=-(-sizes.vocabulary_size // PADDED_TO) * PADDED_TO,
        max_sequence_length=sizes.max_positions, pre_process=stage == 0, post_process=stage == pp - 1, position_embedding_type="rope",
        share_embeddings_and_output_weights=sizes.tied_embeddings,
    )  # fmt: skip


def resave(folder, target, sizes, world):
    for tp, pp in ((world.size, 1), (1, world.size)):
        with model_parallel_groups(tp, pp):
            model = stock_model(sizes, tp=tp, pp=pp)
            for parameter in model.parameters():
                parameter.data.fill_(float("nan"))
            # "raise_all": the checkpoint must hold exactly what stock megatron-core expects
            loaded = dist_checkpointing.load(model.sharded_state_dict(), str(folder), strict="raise_all")
            model.load_state_dict(loaded)
            assert not any(parameter.isnan().any() for parameter in model.parameters())
            copy = target / f"tp{tp}pp{pp}"
            copy.mkdir(parents=True, exist_ok=True)
            torch.distributed.barrier()
            dist_checkpointing.save(model.sharded_state_dict(), str(copy))


def train(folder, target, sizes, world):
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig

    from megatron_astro.checkpoint.training_state import Progress, load_weights, save_training_state
    from megatron_astro.training.optimizer import build_optimizer

    with model_parallel_groups():
        stage = build_stage(sizes, plan_for(sizes, 1, world), dtype="float32")
        model = DistributedDataParallel(stage.config, DistributedDataParallelConfig(use_distributed_optimizer=True), stage)
        optimizer = build_optimizer(OptimizerConfig(learning_rate=0.1), [model], bf16=False, distributed=True)
        load_weights(folder, [model])
        optimizer.reload_model_params()
        for buffer in model.buffers:
            buffer.grad_data.fill_(1.0)
        optimizer.step()
        save_training_state(
            target,
            [model],
            optimizer,
            Progress(step=1, consumed_samples=2, consumed_tokens=3, data_fingerprint=""),
            assets=folder / "huggingface",
        )
        if world.rank == 0:
            torch.save(model.module.state_dict(), target / "weights.pt")


LAYOUTS = {
    1: {"one": {}},
    2: {
        "tp2": {"tp": 2},
        "pp2": {"pp": 2},
        "pp2_uneven": {"pp": 2, "first_stage_layers": 3},
        "dp2": {},
        "pp2_vpp2": {"pp": 2, "vpp": 2},
    },
    3: {"tp3": {"tp": 3}},
    4: {"tp2_pp2": {"tp": 2, "pp": 2}, "tp2_dp2": {"tp": 2}},
}


def slices(folder, target, sizes, world):
    from megatron_astro.checkpoint.export import export_hugging_face
    from megatron_astro.checkpoint.huggingface import HuggingFaceReader
    from megatron_astro.checkpoint.sharded_model import load_slices

    heads = {"num_layers": sizes.num_layers, "num_heads": sizes.num_heads, "num_kv_heads": sizes.num_kv_heads}
    for name, options in LAYOUTS[world.size].items():
        plan = make_plan(ParallelConfig(**options), world.size, **heads)
        with model_parallel_groups(plan.tp, plan.pp, vpp=plan.vpp):
            for dtype in ("float32", "bfloat16"):
                model, other = (build_chunks(sizes, plan, dtype=dtype) for _ in range(2))
                state = {number: chunk.sharded_state_dict() for number, chunk in enumerate(other)}
                loaded = dist_checkpointing.load(state, str(folder))
                ours, theirs = {}, {}
                for number, (chunk, reference) in enumerate(zip(model, other, strict=True)):
                    for parameter in chunk.parameters():
                        parameter.data.fill_(float("nan"))
                    load_slices(HuggingFaceReader(target / "hf"), chunk, sizes)
                    reference.load_state_dict(loaded[number])
                    # by the name in the whole model: chunks of one rank number their layers alike
                    for found, parameters in ((ours, chunk), (theirs, reference)):
                        found |= {whole_name(chunk, name): parameter for name, parameter in parameters.named_parameters()}
                wrong = [key for key in theirs if not torch.equal(ours[key], theirs[key])]
                (target / f"{name}_{dtype}_{world.rank}.json").write_text(json.dumps([sorted(ours), wrong]))
                export_hugging_face(target / f"{name}_{dtype}", model, sizes, model_files=target / "hf", shard_bytes=200_000)


def whole_name(chunk, name):
    first, _, rest = name.removeprefix("decoder.layers.").partition(".")
    return f"decoder.layers.{chunk.decoder.layers[int(first)].layer_number - 1}.{rest}" if first.isdigit() else name


def logits(folder, target, sizes, world):
    with model_parallel_groups(tp=world.size):
        model = build_stage(sizes, plan_for(sizes, world.size, world), dtype="float32")
        model.load_state_dict(dist_checkpointing.load(model.sharded_state_dict(), str(folder)))
        tokens = torch.arange(64).unsqueeze(0) % sizes.vocabulary_size
        with torch.no_grad():
            found = model(tokens, torch.arange(64).unsqueeze(0), None)
        gathered = [torch.empty_like(found) for _ in range(world.size)]
        torch.distributed.all_gather(gathered, found.contiguous())
        if world.rank == 0:
            whole = found if found.shape[-1] == sizes.vocabulary_size else torch.cat(gathered, dim=-1)
            torch.save(whole[0], target)


def plan_for(sizes, tp, world):
    heads = {"num_heads": sizes.num_heads, "num_kv_heads": sizes.num_kv_heads}
    return make_plan(ParallelConfig(tp=tp), world.size, num_layers=sizes.num_layers, **heads)


def main(arguments):
    cpu_support.install()
    commands = {"resave": resave, "train": train, "slices": slices, "logits": logits}
    with joined_world() as world:
        for command, folder, target in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
            sizes = LlamaSizes.from_hf_config(json.loads((Path(folder) / "huggingface/config.json").read_text()))
            commands[command](Path(folder), Path(target), sizes, world)


if __name__ == "__main__":
    main(sys.argv[1:])
