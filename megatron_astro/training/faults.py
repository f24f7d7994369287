"""Ending well when told to: a signal asks every rank to stop after the step in hand, with a checkpoint."""

import signal
from types import FrameType

import torch
import torch.distributed as dist

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Listens for SIGTERM, SIGINT and SIGUSR1; one rank's signal stops all of them at the same step."""

    def __init__(self) -> None:
        self._received = 0
        self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number

    def agreed(self) -> str | None:
        """The name of the signal some rank received, or None; every rank gets the same answer."""
        flag = torch.tensor([self._received], device=torch.cuda.current_device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        number = int(flag.item())
        return signal.Signals(number).name if number else None

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
