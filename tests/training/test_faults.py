import os
import signal
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron_astro.model import cpu_support
    from megatron_astro.training.faults import StopRequest

from megatron_astro.parallel.launch import single_process


@pytest.fixture
def stop():
    """A listener in a world of one rank."""
    cpu_support.install()
    with single_process():
        request = StopRequest()
        yield request
        request.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_kept_until_it_is_asked_for(stop, number):
    assert stop.agreed() is None
    os.kill(os.getpid(), number)
    assert stop.agreed() == number.name
    assert stop.agreed() == number.name


def test_signals_go_back_to_whoever_had_them():
    heard = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        request = StopRequest()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == []
        request.close()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)
