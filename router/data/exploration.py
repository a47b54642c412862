"""Constants of exploration: how many choices are spent on learning."""

from typing import Final

FLOOR: Final = 0.02
"""Least chance of every candidate: what is never tried can never be learned about."""
SHARE: Final = 0.1
"""Share of the choices that a checkpoint in the state `share` makes."""
