"""Chance by the hash of a key: the same everywhere and for ever, so who asks again gets the same."""

import hashlib
from collections.abc import Mapping


def point(key: str) -> float:
    """Where a key falls between 0 and 1."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def draw(chances: Mapping[str, float], key: str) -> str:
    """One of the names, each by its chance; the last where they add up to a little less than 1."""
    left = point(key)
    for name, chance in chances.items():
        left -= chance
        if left < 0:
            return name
    return name
