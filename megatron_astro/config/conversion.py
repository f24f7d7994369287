"""How a checkpoint in the legacy Megatron layout is cut into files."""

from dataclasses import dataclass
from typing import Literal

from megatron_astro.errors import ConfigError

LayerSpec = Literal["transformer_engine", "local"]


@dataclass(frozen=True, kw_only=True)
class RankLayout:
    """Which ranks the checkpoint is for. Only the legacy layout is cut; a distributed checkpoint loads at any."""

    tp: int = 1
    """Tensor-parallel ranks (megatron-legacy)."""
    pp: int = 1
    """Pipeline-parallel ranks (megatron-legacy)."""
    vpp: int = 1
    """Chunks of layers each pipeline rank holds, for interleaved pipelines (megatron-legacy)."""
    layer_spec: LayerSpec = "transformer_engine"
    """Whose names the norms carry: TransformerEngine fuses them into the linears that follow (megatron-legacy)."""

    def __post_init__(self) -> None:
        for name, value in (("tp", self.tp), ("pp", self.pp), ("vpp", self.vpp)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; give 1 or more")
        if self.vpp > 1 and self.pp == 1:
            raise ConfigError(f"vpp is {self.vpp}, but pp is 1; chunks of one stage would follow each other anyway")

    def file(self, tp_rank: int, pp_rank: int) -> str:
        """The file of a rank, within the folder of an iteration."""
        rank = f"mp_rank_{tp_rank:02}" if self.pp == 1 else f"mp_rank_{tp_rank:02}_{pp_rank:03}"
        return f"{rank}/model_optim_rng.pt"
