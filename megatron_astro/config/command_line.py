"""One way for every command to read its options.

Options are a frozen dataclass, read by tyro. `--preset FILE.toml` is flattened into flags that stand before the user's own, so there is
one parser and one style of error, the last flag wins, and a misspelt key fails like a misspelt flag.
"""

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from megatron_astro.errors import ConfigError

Options = TypeVar("Options")

PRESET_HELP = "Options can also come from a file: --preset FILE.toml; flags given beside it win."


def parse_options(options_type: type[Options], arguments: Sequence[str]) -> Options:
    """Read options from flags and, where `--preset` is given, from a TOML file placed before them."""
    description = f"{options_type.__doc__}\n\n{PRESET_HELP}"
    return tyro.cli(options_type, description=description, args=expand_presets(arguments), config=(tyro.conf.FlagConversionOff,))


def expand_presets(arguments: Sequence[str]) -> list[str]:
    """Replace each `--preset FILE` by the flags the file holds, moved before all other flags; arguments before any flag stay in front."""
    num_leading = next((place for place, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    preset_flags: list[str] = []
    own_flags: list[str] = []
    remaining = iter(arguments[num_leading:])
    for argument in remaining:
        if argument == "--preset":
            preset_flags += preset_to_flags(Path(next(remaining, "")))
        elif argument.startswith("--preset="):
            preset_flags += preset_to_flags(Path(argument.partition("=")[2]))
        else:
            own_flags.append(argument)
    return [*arguments[:num_leading], *preset_flags, *own_flags]


def preset_to_flags(path: Path) -> list[str]:
    """Flatten a TOML file into flags: `[data] seq_length = 512` becomes `--data.seq-length 512`."""
    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read the preset {path}: {error.strerror}; name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the preset {path} is not TOML: {error}") from error
    return _flatten(table, "--")


def _flatten(table: dict[str, Any], prefix: str) -> list[str]:
    flags: list[str] = []
    for key, value in table.items():
        name = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            flags += _flatten(value, name + ".")
        else:
            items = value if isinstance(value, list) else [value]
            if nested := [item for item in items if isinstance(item, dict | list)]:
                raise ConfigError(
                    f"the preset's {name.removeprefix('--')} holds {nested[0]!r}; give one value or a plain list of them"
                )
            flags += [name, *(str(item) for item in items)]
    return flags


def options_to_toml(options: object) -> str:
    """Write options as TOML that loads again as a preset; fields that are None are left out (they are defaults)."""
    scalars: list[str] = []
    sections: list[str] = []
    for item in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(options, item.name)
        if dataclasses.is_dataclass(value):
            sections.append(f"\n[{item.name}]\n{options_to_toml(value)}")
        elif value is not None:
            scalars.append(f"{item.name} = {_toml_value(value)}\n")
    return "".join(scalars + sections)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings, but for this character
