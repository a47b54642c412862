"""Texts as rows of numbers: what they mean (MiniLM) and which letters they are made of (hashed n-grams)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from router.encoder import WIDTH, encode
from router.outcomes import Floats

LETTERS: Final = 2048
"""Buckets of letter n-grams; 4096 gave the same neighbours."""
_LONGEST: Final = 2000
"""Letters of a text that are looked at: what follows costs time and changes little."""


def rows(texts: Sequence[str]) -> Floats:
    """(Q, 384 + 2048): a normalised MiniLM row, then log(1 + count) of 3- and 4-grams of letters.

    Each distinct text is encoded once. Takes seconds for hundreds of texts: call it from a thread."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return np.zeros((0, WIDTH + LETTERS))
    table = np.hstack([np.array(encode(distinct)), np.array([letters(text) for text in distinct])])
    place = {text: i for i, text in enumerate(distinct)}
    taken: Floats = table[[place[text] for text in texts]]
    return taken


def letters(text: str) -> Floats:
    """(2048,): log(1 + count) of the text's 3- and 4-grams, each in the bucket of its crc32."""
    plain = f" {' '.join(text.lower().split())[:_LONGEST]} "
    buckets = [
        zlib.crc32(plain[i : i + n].encode()) % LETTERS for n in (3, 4) for i in range(len(plain) - n + 1)
    ]
    counted: Floats = np.log1p(np.bincount(np.array(buckets, dtype=np.int64), minlength=LETTERS))
    return counted


def rarity(table: Floats) -> Floats:
    """(2048,): how much each bucket of letters tells, by how few of the rows have it."""
    seen = (table[:, WIDTH:] > 0).sum(0)
    return np.asarray(np.log((1 + len(table)) / (1 + seen)), dtype=np.float64)


def unit(table: Floats, told: Floats, letters_share: float) -> Floats:
    """(Q, 384 + 2048) of length 1, so that a product of two rows is how alike they are.

    `letters_share`: how much of that is letters, the rest meaning; `told`: of `rarity`."""
    spelled = table[:, WIDTH:] * told
    spelled = spelled / np.maximum(np.linalg.norm(spelled, axis=1, keepdims=True), 1e-9)
    whole = np.hstack([np.sqrt(1 - letters_share) * table[:, :WIDTH], np.sqrt(letters_share) * spelled])
    return np.asarray(
        whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-9), dtype=np.float64
    )
