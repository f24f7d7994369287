import gc

import pytest

from megatron_astro.data.collection import collection_held


def fail_while_held():
    with collection_held():
        assert not gc.isenabled()
        raise KeyError


def test_collection_goes_on_afterwards_even_after_an_error():
    with pytest.raises(KeyError):
        fail_while_held()
    assert gc.isenabled()


def test_collection_that_was_off_stays_off():
    gc.disable()
    try:
        with collection_held():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
