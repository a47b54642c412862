"""Rows of texts, kept; those that are asked for at about the same time are embedded in one forward."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from router.data.arrays import Floats

KEPT: Final = 2_048
"""Texts; a row takes 5 KB."""
_WINDOW_SECONDS: Final = 0.002
"""For how long others may join a forward: short beside the forward itself."""
_MAX_BATCH: Final = 64
"""Texts in one forward, as `router.data.encoder` takes them."""


class EmbeddingCache:
    """Text embeddings of one event loop, which never waits for a forward pass."""

    def __init__(self, embed: Callable[[Sequence[str]], Floats], most: int = KEPT) -> None:
        self._embed = embed
        self._most = most
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._waiting: OrderedDict[str, asyncio.Future[Floats]] = OrderedDict()
        self._working: asyncio.Task[None] | None = None
        self.hits = 0
        self.misses = 0
        self.forwards = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def of(self, texts: Sequence[str]) -> Floats:
        """(N, W), as `features.rows` gives them; raises what the encoder raises."""
        found = [self._row(text) for text in texts]
        rows = [one if isinstance(one, np.ndarray) else await asyncio.shield(one) for one in found]
        return np.stack(rows)

    def _row(self, text: str) -> "Floats | asyncio.Future[Floats]":
        if text in self._kept:
            self.hits += 1
            self._kept.move_to_end(text)
            return self._kept[text]
        self.misses += 1
        if text not in self._waiting:
            self._waiting[text] = asyncio.get_running_loop().create_future()
            if self._working is None or self._working.done():
                self._working = asyncio.create_task(self._work())
        return self._waiting[text]

    async def _work(self) -> None:
        """Forward after forward while anybody waits; callers that come during one are in the next."""
        while self._waiting:
            await asyncio.sleep(_WINDOW_SECONDS)
            texts = list(self._waiting)[:_MAX_BATCH]
            try:
                table = await asyncio.to_thread(self._embed, texts)
                self.forwards += 1
            except Exception as error:
                for text in texts:
                    waiting = self._waiting.pop(text)
                    waiting.set_exception(error)
                    waiting.exception()  # who waited may have gone
                continue
            for text, row in zip(texts, table, strict=True):
                self._keep(text, row)
                self._waiting.pop(text).set_result(row)

    def _keep(self, text: str, row: Floats) -> None:
        self._kept[text] = row
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
