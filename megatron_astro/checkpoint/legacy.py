"""Reading the legacy Megatron layout: a file for each tensor- and pipeline-parallel rank, as `--ckpt-format torch` of its scripts saves it.

    latest_checkpointed_iteration.txt        the iteration, or "release"
    iter_0000100/mp_rank_01_003/model_optim_rng.pt   tensor-parallel rank 1, pipeline rank 3 (mp_rank_01 without pipeline)
    huggingface/                             ours: the model's config and tokenizer

One process reads all files where they lie. Without huggingface/ the configuration is made of the saving run's options, or taken from a
Hugging Face folder that is named.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_astro.checkpoint.huggingface import copy_model_files, read_config, sizes_of
from megatron_astro.checkpoint.legacy_contents import RankFile, chunk_name, read_rank_file
from megatron_astro.checkpoint.legacy_options import check_options, config_from_options
from megatron_astro.checkpoint.names import EMBEDDING, OUTPUT, tensor_groups
from megatron_astro.checkpoint.pieces import StoredTensor, same_bytes
from megatron_astro.checkpoint.rank_slices import (
    SHARES,
    TIED_OUTPUT,
    Place,
    places,
    rank_slice,
    require_divisible_model,
    stored_tensors,
)
from megatron_astro.checkpoint.reader import StoredReader, blocks, check_tensors
from megatron_astro.errors import CheckpointError
from megatron_astro.model.sizes import LlamaSizes
from megatron_astro.parallel.plan import number_layers

logger = logging.getLogger(__name__)

TRACKER = "latest_checkpointed_iteration.txt"
RELEASE = "release"
RANK_FILE = "model_optim_rng.pt"
MODEL_FILES_FOLDER = "huggingface"
RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?")


class LegacyReader(StoredReader):
    """A legacy Megatron checkpoint of a LLaMA whose files, names and shapes were checked."""

    def __init__(self, folder: Path, config_from: Path | None = None) -> None:
        self.path = folder
        iteration = iteration_folder(folder)
        stages = {pp_rank: [*map(read_rank_file, files)] for pp_rank, files in enumerate(rank_files(iteration))}
        self._model_files = config_from or _model_files(folder, iteration)
        if self._model_files is None:
            self.config: dict[str, Any] = config_from_options(stages[0][0].args, folder)
        else:
            self.config = read_config(self._model_files)
        self.sizes = sizes_of(self._model_files or folder, self.config)
        require_divisible_model(self.sizes, len(stages[0]))
        for file in (file for stage in stages.values() for file in stage):
            check_options(file.args, self.sizes, file.path)
        layers = _layers(stages, self.sizes, folder)
        wanted = list(places(tensor_groups(self.sizes), layers, tied_embeddings=self.sizes.tied_embeddings))
        self.tensors = tensors_of_ranks(stages, wanted, self.sizes, folder)

    def write_model_files(self, folder: Path) -> None:
        """Copy config, tokenizer, chat template and licence; without them, write the config.json that the saving run's options make."""
        if self._model_files is not None:
            copy_model_files(self._model_files, folder)
        else:
            (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


def is_legacy(folder: Path) -> bool:
    """Whether a folder holds rank files, or the newest iteration in it does."""
    return any(folder.glob(f"mp_rank_*/{RANK_FILE}")) or any(folder.glob(f"*/mp_rank_*/{RANK_FILE}"))


def iteration_folder(folder: Path) -> Path:
    """The folder with the ranks' folders: the one named, or the one that its tracker file names."""
    if any(folder.glob("mp_rank_*")):
        return folder
    try:
        text = (folder / TRACKER).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CheckpointError(f"cannot read {folder / TRACKER}: {error.strerror}; name the folder of an iteration") from error
    if text != RELEASE and not text.isdecimal():
        raise CheckpointError(f"{folder / TRACKER} says {text[:40]!r}, which is no iteration; name the folder of one")
    found = folder / (RELEASE if text == RELEASE else f"iter_{int(text):07}")
    if not found.is_dir():
        raise CheckpointError(
            f"{folder / TRACKER} names {found.name}, which is missing; fetch it, or name the folder of an iteration"
        )
    return found


def rank_files(iteration: Path) -> list[list[Path]]:
    """The ranks' files, `[pipeline rank][tensor-parallel rank]`; CheckpointError when one is missing."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(iteration.glob("mp_rank_*")):
        if match := RANK_FOLDER.fullmatch(path.name):
            if match[3] is not None:
                raise CheckpointError(f"{path} is of a model with experts, which is not supported")
            found[int(match[1]), int(match[2] or 0)] = path / RANK_FILE
    tp, pp = (max((rank[axis] for rank in found), default=0) + 1 for axis in (0, 1))
    for rank in ((tp_rank, pp_rank) for pp_rank in range(pp) for tp_rank in range(tp)):
        if rank not in found or not found[rank].is_file():
            name = found[rank] if rank in found else iteration / f"mp_rank_{rank[0]:02}_{rank[1]:03}"
            raise CheckpointError(f"{name} is missing, but there are ranks up to tensor {tp - 1} and pipeline {pp - 1}; fetch it")
    return [[found[tp_rank, pp_rank] for tp_rank in range(tp)] for pp_rank in range(pp)]


def tensors_of_ranks(
    stages: Mapping[int, Sequence[RankFile]], wanted: Sequence[Place], sizes: LlamaSizes, where: Path
) -> dict[str, StoredTensor]:
    """The byte plan of Hugging Face tensors, from the files of some pipeline ranks, which must hold the places wanted and no others.

    What several ranks hold, the norms and a tied embedding, must be the same in each.
    """
    rows = vocabulary_rows(stages, sizes)
    if rows < sizes.vocabulary_size:
        raise CheckpointError(f"{where}: its vocabulary has {rows} rows, but config.json demands {sizes.vocabulary_size}")
    _check_shapes(stages, wanted, sizes, rows, where)
    tensors: dict[str, StoredTensor] = {}
    for place in wanted:
        ranks = [(file.path, file.chunks[place.chunk][place.name, place.layer]) for file in stages[place.pp_rank]]
        if len(dtypes := {placed.dtype for _, placed in ranks}) > 1:
            raise CheckpointError(f"{where}: ranks hold {place.name} in different types ({dtypes}); get the complete checkpoint")
        copies = ranks[1:] if SHARES[place.group.rule.megatron] == "all" else []
        found = stored_tensors(place.group, sizes, ranks, vocabulary_rows=rows)
        for copy in copies:
            _require_same(found, stored_tensors(place.group, sizes, [copy], vocabulary_rows=rows))
        if place.name == TIED_OUTPUT and place.group.rule == EMBEDDING:
            _require_same(tensors, found)
        tensors = found | tensors
    return tensors


def vocabulary_rows(stages: Mapping[int, Sequence[RankFile]], sizes: LlamaSizes) -> int:
    """Rows of the embedding or the output layer with their padding, as the ranks have them."""
    names = (EMBEDDING.megatron, OUTPUT.megatron)
    for stage in stages.values():
        for chunk in stage[0].chunks:
            for name in names:
                if (name, None) in chunk:
                    return chunk[name, None].shape[0] * len(stage)
    return sizes.vocabulary_size


def _check_shapes(
    stages: Mapping[int, Sequence[RankFile]], wanted: Sequence[Place], sizes: LlamaSizes, rows: int, where: Path
) -> None:
    found = {
        _described(file, chunk, *key): placed.shape
        for stage in stages.values()
        for file in stage
        for chunk, tensors in enumerate(file.chunks)
        for key, placed in tensors.items()
    }
    expected: dict[str, tuple[int, ...]] = {}
    for place in wanted:
        stage = stages[place.pp_rank]
        for rank, file in enumerate(stage):
            own = rank_slice(place.group, sizes, tp=len(stage), rank=rank, vocabulary_rows=rows)
            expected[_described(file, place.chunk, place.name, place.layer)] = own.shape
    check_tensors(found, expected, where)


class _Copies(StoredReader):
    """Tensors to be compared with others of the same names."""

    def __init__(self, tensors: dict[str, StoredTensor]) -> None:
        self.tensors = tensors


def _require_same(expected: dict[str, StoredTensor], found: dict[str, StoredTensor]) -> None:
    """CheckpointError unless copies of the same tensors are the same bit for bit."""
    for name, copy in found.items():
        pairs = zip(*(blocks(_Copies(tensors), name, copy.shape) for tensors in (expected, found)), strict=True)
        same = copy.dtype == expected[name].dtype
        if not same or not all(same_bytes(one, other) for (_, one), (_, other) in pairs):
            raise CheckpointError(
                f"{copy.file} and {expected[name].file} hold different copies of {name}; the ranks that saved them had drifted apart, or "
                "the files are of different iterations"
            )


def _layers(stages: Mapping[int, Sequence[RankFile]], sizes: LlamaSizes, where: Path) -> tuple[tuple[range, ...], ...]:
    """Which layers each chunk holds, counted in the files; CheckpointError unless ranks have as many chunks and together all layers."""
    files = [file for stage in stages.values() for file in stage]
    if len({len(file.chunks) for file in files}) > 1:
        raise CheckpointError(
            f"{where}: some ranks hold {len(files[0].chunks)} chunks of layers and others not; get the complete checkpoint"
        )
    counts = [
        [1 + max((layer for _, layer in chunk if layer is not None), default=-1) for chunk in stage[0].chunks]
        for stage in stages.values()
    ]
    if (total := sum(map(sum, counts))) != sizes.num_layers:
        raise CheckpointError(
            f"{where}: its ranks hold {total} layers (by pipeline rank and chunk: {counts}), but config.json demands {sizes.num_layers}; "
            "get the complete checkpoint, or its own config.json"
        )
    return number_layers(counts)


def _described(file: RankFile, chunk: int, name: str, layer: int | None) -> str:
    """A tensor of a rank's file in words."""
    own = name if layer is None else name.replace(".layers.", f".layers.{layer}.", 1)
    return f"{file.path.parent.name}/{chunk_name(chunk, len(file.chunks))}: {own}"


def _model_files(folder: Path, iteration: Path) -> Path | None:
    """The folder with config.json beside the iterations, or in one."""
    candidates = (folder, iteration, iteration.parent)
    return next((path / MODEL_FILES_FOLDER for path in candidates if (path / MODEL_FILES_FOLDER / "config.json").is_file()), None)
