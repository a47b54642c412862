"""TODO"""

from typing import Final

FLOOR: Final = 0.02
"""The least chance of every candidate: what is never tried can never be learned about."""


SHARE: Final = 0.1
"""Of the choices, while a checkpoint serves some."""
