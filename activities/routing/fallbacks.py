"""The models that a step asks, one after the other."""

from collections.abc import Sequence

from gateway.failures import moves_on
from schema.errors import ProviderError


class Choices:
    """A model, and those to ask instead when it fails.

    One way through them is one attempt of Temporal's: when all have failed it waits, and begins anew.
    """

    def __init__(self, first: str, fallback: Sequence[str]) -> None:
        self._left = [model for model in dict.fromkeys(fallback) if model != first]
        self.first = self.model = first
        self._failed: list[tuple[str, ProviderError]] = []

    @property
    def more(self) -> bool:
        return bool(self._left)

    def next(self, error: ProviderError) -> bool:
        """Note how the model failed; whether there is another to ask now."""
        self._failed.append((self.model, error))
        if not self._left or not moves_on(error):
            return False
        self.model = self._left.pop(0)
        return True

    def verdict(self) -> ProviderError:
        """Return the error once the last model has failed: retryable if any model's error was."""
        _, last = self._failed[-1]
        if len(self._failed) == 1:
            return last
        hopeful = [error for _, error in self._failed if error.retryable]
        told = hopeful[-1] if hopeful else last
        waits = [error.retry_after_seconds for error in hopeful]
        return ProviderError(
            told.code,
            "; then ".join(f"{model}: {error.message}" for model, error in self._failed)[:2_000],
            retryable=bool(hopeful),
            # The first of them to be there again is as good as any.
            retry_after_seconds=min((wait for wait in waits if wait), default=None) if all(waits) else None,
        )
