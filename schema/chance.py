"""Chance by the hash of a key: the same everywhere and for ever, so the same key always gets the same."""

import hashlib
from collections.abc import Mapping


def point(key: str) -> float:
    """Hash a key to a number from 0 to below 1."""
    digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
    # So many bits as a float holds exactly: more of them could be rounded up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def draw(chances: Mapping[str, float], key: str) -> str:
    """One of the names, each by its chance; the last where they add up to a little less than 1."""
    left = point(key)
    for name, chance in chances.items():
        left -= chance
        if left < 0:
            return name
    return name
