"""The garbage collector of a process that serves: rare, and blind to what was imported."""

import gc
from typing import Final

_YOUNG: Final = 20_000
"""New objects before it looks for circles. Python's own 700 make it look hundreds of times a second."""


def settle() -> None:
    """Freeze the objects that exist now.

    litellm alone makes a million objects, and each full collection would walk them again and hold up every
    token for half a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
