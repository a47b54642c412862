"""The garbage collector of a process that serves: rare, and blind to what was imported."""

import gc
from typing import Final

_YOUNG: Final = 20_000
"""New objects before it looks for circles. Python's own 700 make it look hundreds of times a second."""


def settle() -> None:
    """What is there now is there to stay: litellm alone makes a million objects, and each full collection
    would hold up every token for half a second to walk them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
