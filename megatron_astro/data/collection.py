"""The garbage collector, held back while the tables of a vocabulary are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_held() -> Iterator[None]:
    """Within, no garbage is collected.

    A vocabulary's tables are a hundred thousand lists and tuples, all of them in use; making them sets off collections that walk over
    every object of the process: up to 0.3 CPU seconds where torch is loaded, half of what starting to tokenise takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
