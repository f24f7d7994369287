from dataclasses import dataclass, field

import pytest

from megatron_astro.config.command_line import expand_presets, options_to_toml, parse_options, preset_to_flags
from megatron_astro.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section."""

    size: int = 3
    """Number of things."""
    names: tuple[str, ...] = ()
    """Names of things."""
    on: bool = False
    """Whether it is on."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options."""

    rate: float = 0.5
    """Things per second."""
    label: str | None = None
    """What to call it."""
    section: Section = field(default_factory=Section)


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "preset.toml"
    path.write_text('rate = 2.0\n[section]\nsize = 7\nnames = ["a b", "c"]\non = true\n')
    return path


def test_flags_given_beside_a_preset_win_wherever_they_stand(preset):
    for arguments in (["--section.size", "9", "--preset", str(preset)], [f"--preset={preset}", "--section.size", "9"]):
        assert parse_options(Options, arguments) == Options(rate=2.0, section=Section(size=9, names=("a b", "c"), on=True))


def test_arguments_without_a_flag_are_no_part_of_a_presets_list(tmp_path):
    path = tmp_path / "preset.toml"
    path.write_text('names = ["a", "b"]\n')
    assert expand_presets(["file", "--preset", str(path), "--rate", "1"]) == ["file", "--names", "a", "b", "--rate", "1"]


def test_what_is_written_reads_back_the_same(tmp_path):
    options = Options(rate=1e-8, label='quoted "name" \\ ok\n\x7f Grüße', section=Section(names=("x",), on=True))
    path = tmp_path / "resolved.toml"
    path.write_text(options_to_toml(options))
    assert parse_options(Options, ["--preset", str(path)]) == options


@pytest.mark.parametrize("as_preset", [True, False])
def test_a_typo_names_the_nearest_option(tmp_path, capsys, as_preset):
    arguments = ["--section.sise", "3"]
    if as_preset:
        path = tmp_path / "typo.toml"
        path.write_text("[section]\nsise = 3\n")
        arguments = ["--preset", str(path)]
    with pytest.raises(SystemExit) as caught:
        parse_options(Options, arguments)
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "--section.sise" in errors
    assert "--section.size" in errors


@pytest.mark.parametrize("text", ['[section]\nnames = [["a"], ["b"]]\n', '[section]\n[[section.names]]\nx = "a"\n'])
def test_a_list_of_lists_or_tables_is_no_option(tmp_path, text):
    path = tmp_path / "nested.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"the preset's section\.names holds .*'a'.*; give one value"):
        preset_to_flags(path)


def test_a_preset_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the preset"):
        expand_presets(["--preset", str(tmp_path / "none.toml")])
    broken = tmp_path / "broken.toml"
    broken.write_text("rate = = 2")
    with pytest.raises(ConfigError, match="is not TOML"):
        preset_to_flags(broken)
