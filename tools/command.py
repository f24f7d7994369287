"""How every command of this folder starts and ends: parse, act, one closing line; bad input is one line and exit status 2."""

import sys
import warnings
from collections.abc import Callable
from typing import NoReturn, TypeVar

from megatron_astro.config.command_line import parse_options
from megatron_astro.errors import AstroError
from megatron_astro.log import configure_logging

Options = TypeVar("Options")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

# What megatron-core and PyTorch say of each other on every run: nothing a user could act on (in the tests, warnings are errors).
warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.")
warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf Tensor")


def run_command(options_type: type[Options], action: Callable[[Options], str | None]) -> NoReturn:
    """Parse the command line, run `action` on the options, print the line it returns, and exit."""
    try:
        options = parse_options(options_type, sys.argv[1:])
        configure_logging()
        closing_line = action(options)
    except AstroError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:  # a full disk, a folder without permission: wherever no stage has said more about it
        print(f"error: {error.filename or ''}{': ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except MemoryError as error:
        print(
            f"error: not enough memory ({error}); ask for less at once, such as fewer steps or a smaller batch", file=sys.stderr
        )
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    if closing_line:
        print(closing_line)
    sys.exit(0)
