"""Bound the processor time of a piece of work, as a process that serves would spend it."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes more processor time.

    What the tests before it have loaded is frozen meanwhile, as `garbage_collection.settle` does where the
    platform serves: a full collection over a million objects of other tests is none of the work's time."""
    gc.freeze()
    began = time.process_time()
    try:
        yield
        took = time.process_time() - began
    finally:
        gc.unfreeze()
    assert took < seconds
