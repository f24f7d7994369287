import pytest

from megatron_astro.config.cleaning_rules import CLEANING_RULES, active_rules, require_known_names
from megatron_astro.errors import ConfigError


def test_names_are_unique():
    names = [*CLEANING_RULES, *(rule for rules in CLEANING_RULES.values() for rule in rules)]
    assert len(names) == len(set(names))


def test_steps_and_rules_are_switched_off_by_name():
    assert active_rules("duplicates", ()) == {"same_paper", "exact", "near", "contained"}
    assert active_rules("duplicates", ("near", "digits")) == {"same_paper", "exact", "contained"}
    assert active_rules("duplicates", ("duplicates",)) == set()


def test_unknown_names_are_refused():
    require_known_names(["quality", "near"])
    with pytest.raises(ConfigError, match=r"skip names 'nearr', which is no step and no rule; choose from .*near,"):
        require_known_names(["nearr"])
