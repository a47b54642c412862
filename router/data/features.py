"""Texts as rows of numbers: what they mean (MiniLM) and which letters they are made of (hashed n-grams)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from router.data.arrays import Floats
from router.data.encoder import WIDTH, encode

Rows = np.typing.NDArray[np.float32]

LETTERS: Final = 256
"""Numbers that hash a text's n-grams of letters; 2048 gave the same neighbours."""
TOKENS: Final = 48
LAYERS: Final = 2
"""Layers of MiniLM that read a text: six layers of 256 tokens told no more of success and took four times as
long."""
_MAX_CHARS: Final = 2000
"""Letters of a text that are looked at: what follows costs time and changes little."""
_ODD: Final = tuple(
    np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
"""Spread a letter over 64 bits, each place of an n-gram its own way."""
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)


def rows(texts: Sequence[str]) -> Floats:
    """(Q, 384 + 256): a normalised MiniLM row, then `letters`.

    Each distinct text is encoded once. Takes seconds for hundreds of texts: call it from a thread."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return np.zeros((0, WIDTH + LETTERS))
    meaning = np.array(encode(distinct, TOKENS, LAYERS))
    table = np.hstack([meaning, np.array([letters(text) for text in distinct])])
    place = {text: i for i, text in enumerate(distinct)}
    taken: Floats = table[[place[text] for text in texts]]
    return taken


def letters(text: str) -> Floats:
    """(256,): log(1 + count) of each of the text's 3- and 4-grams, with a sign of its own, added up where its
    hash says (Weinberger et al. 2009): products of two such rows are those of the counts, on average."""
    plain = f" {' '.join(text.lower().split())[:_MAX_CHARS]} "
    at = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    three = at[:-2] * _ODD[0] + at[1:-1] * _ODD[1] + at[2:] * _ODD[2]
    grams = np.concatenate([three, three[:-1] + at[3:] * _ODD[3]])
    grams = (grams ^ (grams >> np.uint64(29))) * _MIX
    hashes, counts = np.unique(grams ^ (grams >> np.uint64(32)), return_counts=True)
    signed = np.where(hashes & np.uint64(1), 1.0, -1.0) * np.log1p(counts)
    bucket = ((hashes >> np.uint64(1)) % np.uint64(LETTERS)).astype(np.int64)
    return np.asarray(np.bincount(bucket, signed, LETTERS), dtype=np.float64)


def unit(table: Floats, letters_share: float) -> Rows:
    """(Q, 384 + 256) of length 1, so that a product of two rows is how alike they are.

    `letters_share`: how much of that is letters, the rest meaning."""
    spelled = table[:, WIDTH:]
    length = np.maximum(np.linalg.norm(spelled, axis=1, keepdims=True), 1e-9)
    parts = np.sqrt(1 - letters_share) * table[:, :WIDTH], np.sqrt(letters_share) * spelled / length
    whole = np.hstack(parts).astype(np.float32)
    return np.asarray(whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-9))
