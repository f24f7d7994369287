import dataclasses
from pathlib import Path

import pytest

from megatron_astro.config.cleaning import (
    CleaningRules,
    DecontaminationConfig,
    DuplicatesConfig,
    LanguageConfig,
    LengthConfig,
    PagesConfig,
    QualityConfig,
    RepetitionConfig,
    SlurmConfig,
)
from megatron_astro.config.command_line import options_to_toml, parse_options
from megatron_astro.errors import ConfigError

OPTION_LIST = Path(__file__).parent / "cleaning_options.txt"


def option_names(section, prefix=""):
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            yield from option_names(value, item.name + ".")
        else:
            yield prefix + item.name


def test_the_list_of_options_changes_only_on_purpose():
    names = [*option_names(CleaningRules()), *option_names(SlurmConfig(), "slurm.")]
    assert "\n".join(names) == OPTION_LIST.read_text().strip()


def test_a_preset_of_the_rules_reads_back(tmp_path):
    rules = CleaningRules(
        skip=("language", "near"),
        replay_fraction=0.1,
        length=LengthConfig(min_words=7),
        language=LanguageConfig(keep=("en", "fr")),
    )
    path = tmp_path / "resolved.toml"
    path.write_text(options_to_toml(rules))
    assert parse_options(CleaningRules, ["--preset", str(path)]) == rules


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        (PagesConfig, {"max_missing_fraction": 1.5}, "pages.max_missing_fraction is 1.5"),
        (RepetitionConfig, {"short_phrase_copies": 1}, "repetition.short_phrase_copies is 1; give 2 or more"),
        (RepetitionConfig, {"max_repaired_fraction": float("nan")}, "repetition.max_repaired_fraction is nan"),
        (LanguageConfig, {"keep": ()}, "language.keep is empty"),
        (QualityConfig, {"max_mean_word_length": 2.0}, "quality.max_mean_word_length is 2.0; give 3 or more"),
        (LengthConfig, {"max_words": 10}, "length.max_words is 10; give 50 or more"),
        (DecontaminationConfig, {"ngram_words": 0}, "decontamination.ngram_words is 0"),
        (DuplicatesConfig, {"min_similarity": -0.1}, "duplicates.min_similarity is -0.1"),
        (DuplicatesConfig, {"containment_sampling": 0}, "duplicates.containment_sampling is 0"),
        (SlurmConfig, {"hours": 0}, "slurm.hours is 0"),
        (CleaningRules, {"replay_fraction": 1.0}, "replay_fraction is 1.0"),
        (CleaningRules, {"skip": ("x",)}, "skip names 'x'"),
    ],
)
def test_one_field_checks(section, values, text):
    with pytest.raises(ConfigError) as caught:
        section(**values)
    assert text in str(caught.value)
