import pytest

from megatron_astro.config.conversion import RankLayout
from megatron_astro.errors import ConfigError


def test_files_are_named_as_megatron_does():
    assert RankLayout(tp=2).file(1, 0) == "mp_rank_01/model_optim_rng.pt"
    assert RankLayout(tp=8, pp=4).file(7, 3) == "mp_rank_07_003/model_optim_rng.pt"


@pytest.mark.parametrize(
    ("options", "words"), [({"tp": 0}, "tp is 0"), ({"pp": -1}, "pp is -1"), ({"vpp": 2}, "vpp is 2, but pp is 1")]
)
def test_refuses(options, words):
    with pytest.raises(ConfigError, match=words):
        RankLayout(**options)
