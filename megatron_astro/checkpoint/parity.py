"""The proof of a conversion: both models' float32 logits on the same fixed tokens, each model loaded by its own library.

Shapes: s probe tokens, V vocabulary.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from megatron_astro.checkpoint.distributed import MODEL_FILES_FOLDER
from megatron_astro.checkpoint.legacy import LegacyReader
from megatron_astro.checkpoint.legacy_contents import spelt
from megatron_astro.checkpoint.names import tensor_groups
from megatron_astro.checkpoint.reader import read_group
from megatron_astro.config.run import ParallelConfig
from megatron_astro.data.tokenizer import TokenizersErrors
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.launch import single_process
from megatron_astro.parallel.plan import ParallelPlan, make_plan
from megatron_astro.provenance import current_provenance
from megatron_astro.records import ParityRecord

Format = Literal["huggingface", "megatron", "megatron-legacy"]

# Measured on SmolLM2-135M (30 layers, logits up to 38) with the text below. Float32 alone: 7e-5 from float64, and 5e-5 to 7e-5 between
# orders of summation. Mistakes: one norm weight of 17,280 off by 1 % 1.3e-3, norm epsilon 1e-6 for 1e-5 1.5e-2, theta off by 1 % 2.3e-2,
# RoPE scaling dropped or added 0.6, rows of q and k permuted 32. Random ids would not do as a probe: float32 alone reaches 7e-4 on some.
LOGIT_TOLERANCE = 1e-4

PARITY_FILE = "parity.json"
PROBE_LENGTH = 96
PROBE_TEXT = (
    "The light curve of a Type Ia supernova rises over about 18 days to a peak absolute magnitude near -19.3 and then fades, first quickly "
    "and later at the rate at which cobalt-56 decays. Brighter supernovae fade more slowly; corrected for this, their peaks differ by only "
    "0.15 mag, so that in 1998 two teams could see that distant ones are fainter than a decelerating universe allows, and concluded that "
    "the expansion of the universe accelerates."
)


def probe_tokens(model_files: Path, sizes: LlamaSizes) -> tuple[int, ...]:
    """The fixed tokens: an astronomical text where the folder has a tokenizer, else ids spread over the vocabulary.

    DataError for a tokenizer.json that its library refuses.
    """
    length = min(PROBE_LENGTH, sizes.max_positions)
    tokens = [(7919 * step + 17) % sizes.vocabulary_size for step in range(length)]  # 7919 is prime: no early repeats
    if (path := model_files / "tokenizer.json").is_file():
        with TokenizersErrors(path):
            ids = Tokenizer.from_file(str(path)).encode(PROBE_TEXT, add_special_tokens=False).ids
        tokens = [number for number in ids if number < sizes.vocabulary_size][:length] or tokens
    return tuple(tokens)


def hugging_face_logits(folder: Path, tokens: tuple[int, ...], sizes: LlamaSizes, rounded_to: torch.dtype | None) -> Tensor:
    """Float32 logits of transformers' own LLaMA on a folder. -> [s, V]."""
    del sizes
    from transformers import LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    _round_weights(model, rounded_to)
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


def megatron_logits(folder: Path, tokens: tuple[int, ...], sizes: LlamaSizes, rounded_to: torch.dtype | None) -> Tensor:
    """Float32 logits of our model, its weights loaded by megatron-core itself from a distributed checkpoint. -> [s, V]."""
    from megatron.core import dist_checkpointing

    from megatron_astro.model.build import build_stage

    with single_process() as world:
        model = build_stage(sizes, _one_rank(sizes), dtype="float32")
        loaded = dist_checkpointing.load({"model": model.sharded_state_dict()}, str(folder))  # a training checkpoint holds more
        model.load_state_dict(loaded["model"])
        return _logits(model, tokens, rounded_to, world.device)


def legacy_logits(folder: Path, tokens: tuple[int, ...], sizes: LlamaSizes, rounded_to: torch.dtype | None) -> Tensor:
    """Float32 logits of our model, put together from the ranks' files of a legacy checkpoint. -> [s, V]."""
    from megatron_astro.model.build import build_stage

    with single_process() as world:
        model = build_stage(sizes, _one_rank(sizes), dtype="float32")
        state = {}
        reader = LegacyReader(folder)
        for group in tensor_groups(sizes):
            tensors = read_group(reader, group)
            runs = group.rule.layout.runs([len(tensor) for tensor in tensors], sizes)
            state[spelt(group.rule.megatron, group.layer, "local")] = torch.cat(
                [tensors[run.tensor][run.begin : run.end] for run in runs]
            )
        model.load_state_dict(state, strict=False)  # all weights, which the reader has checked; no empty extra states
        return _logits(model, tokens, rounded_to, world.device)


LOGITS: dict[Format, Callable[[Path, tuple[int, ...], LlamaSizes, torch.dtype | None], Tensor]] = {
    "huggingface": hugging_face_logits,
    "megatron": megatron_logits,
    "megatron-legacy": legacy_logits,
}


def compare_logits(
    source: tuple[Path, Format],
    target: tuple[Path, Format],
    sizes: LlamaSizes,
    *,
    rounded_to: torch.dtype | None,
    target_name: str,
    target_sizes: LlamaSizes | None = None,
) -> ParityRecord:
    """Measure how far two checkpoints' logits differ; CheckpointError above LOGIT_TOLERANCE.

    Where the conversion rounds weights (`rounded_to`), the source's are rounded too, so that what is measured is the conversion and
    not the rounding. `target_name` is what the record calls the target, which may still carry a temporary name. `target_sizes` differ from
    the source's `sizes` where the vocabulary grew; then the logits of the old tokens are compared.
    """
    folder, source_format = source
    tokens = probe_tokens(folder if source_format == "huggingface" else folder / MODEL_FILES_FOLDER, sizes)
    before = LOGITS[source_format](folder, tokens, sizes, rounded_to)
    after = LOGITS[target[1]](target[0], tokens, target_sizes or sizes, None)
    difference = float((before - after[:, : sizes.vocabulary_size]).abs().max())
    if not math.isfinite(difference):
        raise CheckpointError(
            f"the logits of {target_name} or of {folder} are not finite, so nothing is proven, and nothing was kept: the weights hold NaN, "
            "infinite or far too large numbers; get the model again"
        )
    if not difference <= LOGIT_TOLERANCE:
        raise CheckpointError(
            f"the logits of {target_name} differ from those of {folder} by up to {difference:.2e} (limit {LOGIT_TOLERANCE}); "
            "this is not proven to be the same model, and nothing was kept. Below about 1e-3 it may be this model's "
            "float32 rounding on this machine: convert with verification headers and compare the two yourself"
        )
    groups = tensor_groups(target_sizes or sizes)
    return ParityRecord(
        source=str(folder),
        target=target_name,
        probe_tokens=tokens,
        max_abs_logit_difference=difference,
        tolerance=LOGIT_TOLERANCE,
        source_probe_loss=probe_loss(before, tokens),
        target_probe_loss=probe_loss(after, tokens),
        num_tensors=sum(len(group.names) for group in groups),
        num_parameters=sum(group.num_parameters for group in groups),
        provenance=current_provenance(),
    )


def _one_rank(sizes: LlamaSizes) -> ParallelPlan:
    return make_plan(ParallelConfig(), 1, num_layers=sizes.num_layers, num_heads=sizes.num_heads, num_kv_heads=sizes.num_kv_heads)


def _logits(model: torch.nn.Module, tokens: tuple[int, ...], rounded_to: torch.dtype | None, device: torch.device) -> Tensor:
    """What a Megatron model computes. -> [s, V]."""
    _round_weights(model, rounded_to)
    model.eval()
    with torch.no_grad():
        ids, positions = torch.tensor([tokens], device=device), torch.arange(len(tokens), device=device).unsqueeze(0)
        logits: Tensor = model(ids, positions, None)[0]
    return logits.cpu()


def probe_loss(logits: Tensor, tokens: tuple[int, ...]) -> float:
    """Mean next-token loss in nats over the s - 1 predicted tokens. [s, V] -> ()."""
    if len(tokens) < 2:
        return math.nan
    return float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:])))


def _round_weights(model: torch.nn.Module, dtype: torch.dtype | None) -> None:
    """Round every weight to `dtype` (None: to nothing coarser) and keep it in float32."""
    if dtype is not None:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).float()
