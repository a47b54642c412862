"""Batches that several runs share: a record that cannot be written takes no other with it."""

from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import psycopg
from sqlalchemy import exc

from schema.errors import FacilitairError

R = TypeVar("R")

_AWAY: Final = (
    exc.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
_TOO_MUCH: Final = "54"
"""Begins the codes by which Postgres refuses one value as too large or too deep: operational errors, too."""
_WRONG_STATEMENT: Final = "42"
"""Begins the codes of statements that are wrong themselves, such as for a table that is not there."""


def is_away(error: BaseException) -> bool:
    """Return whether Postgres, or the way to it, is at fault, and not what was asked."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, _AWAY) and not is_refused(error)


def is_refused(error: BaseException) -> bool:
    """Return whether Postgres, or the way to it, cannot hold a value that it was given."""
    cause = getattr(error, "orig", None) or error
    return isinstance(cause, (psycopg.DataError, UnicodeEncodeError)) or _state(error).startswith(_TOO_MUCH)


def _state(error: BaseException) -> str:
    """Postgres' code of an error, empty for others'."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None) or ""


def befalls_all(error: BaseException) -> bool:
    """Return whether no record is to blame for an error: a later try may succeed."""
    if isinstance(error, FacilitairError):
        return error.retryable
    if not isinstance(error, Exception) or isinstance(error, (OSError, MemoryError)):
        return True
    return is_away(error) or _state(error).startswith(_WRONG_STATEMENT)


class Isolation(Generic[R]):
    """The parts in which a batch is written: the whole of it at once, and where that is refused its halves,
    until the record that is at fault stands alone. Parts keep the order of the records.

    ```
    for part in isolation:
        try:
            write(part)
        except Exception as error:
            isolation.refuse(error)
    ```
    """

    def __init__(self, records: Sequence[R]) -> None:
        self.refused: list[tuple[R, Exception]] = []
        """The records that cannot be written, and why."""
        self._part: Sequence[R] = ()
        self._further = [records] if records else []

    def __iter__(self) -> Iterator[Sequence[R]]:
        while self._further:
            self._part = self._further.pop()
            yield self._part
        self._part = ()

    @property
    def left(self) -> list[R]:
        """Return the records that were neither written nor refused."""
        return [record for part in (self._part, *reversed(self._further)) for record in part]

    def refuse(self, error: Exception) -> None:
        """Note that the present part was not written. Raises the error where it befalls all."""
        if befalls_all(error):
            raise error
        part, self._part = self._part, ()
        if len(part) == 1:
            self.refused.append((part[0], error))
        else:
            middle = len(part) // 2
            self._further += [part[middle:], part[:middle]]
