"""Logging for commands: one plain line a message on standard error, tagged with the rank where there are several."""

import logging
import sys


def configure_logging(rank: int = 0, world_size: int = 1) -> None:
    """Send the package's messages to standard error; ranks other than 0 say only warnings."""
    tag = f"[rank {rank}] " if world_size > 1 else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {tag}%(message)s", datefmt="%H:%M:%S"))
    package = logging.getLogger("megatron_astro")
    package.handlers[:] = [handler]
    package.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    package.propagate = False
