"""Connections to Postgres, and `transaction()`: the one place that commits (`statement()` apart)."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, create_engine, event, exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from db import wakeups
from db.isolation import is_away
from db.wakeups import Bell

T = TypeVar("T")

IDLE_SECONDS: Final = 5.0
"""A connection that lay unused for longer is asked whether it still stands, before it is used."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_MAX_PAUSE_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


def _url(database_url: str) -> str:
    """The URL as Postgres' own tools write it, with SQLAlchemy's driver filled in."""
    url = make_url(database_url)
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def sync_engine(database_url: str) -> Engine:
    return create_engine(_url(database_url), connect_args={"connect_timeout": 5})


def async_engine(
    database_url: str, *, pool_size: int = 10, pre_ping: bool = False, bell: Bell | None = None
) -> AsyncEngine:
    """`pre_ping` costs a round trip per use, so workers do without: there only a connection that lay unused
    is asked first. One that breaks while it is used fails an attempt, and Temporal makes the next; but what
    was paid by then is kept with `persist`.

    `bell` wakes who waits for news of the runs that a transaction changed.
    """
    engine = create_async_engine(
        _url(database_url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=20,
        pool_recycle=1800,
        pool_pre_ping=pre_ping,
        connect_args={"connect_timeout": 5},
    )
    if not pre_ping:
        _ask_idle_ones(engine)
    return engine.execution_options(bell=bell) if bell else engine


def _ask_idle_ones(engine: AsyncEngine) -> None:
    """After a restart of Postgres no idle connection of the pool fails anybody's first statement."""

    @event.listens_for(engine.sync_engine, "checkin")
    def rested(_connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("since", time.monotonic()) < IDLE_SECONDS:
            return
        try:
            engine.sync_engine.dialect.do_ping(connection)
        except Exception as error:
            # The pool then drops the others of the same age too, and makes a new one.
            raise exc.InvalidatePoolError from error


async def persist(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Retry a piece of work on fresh connections while Postgres is away, for at most the given time.

    For what comes after money was spent: giving the attempt up would pay for the answer a second time. The
    work must be harmless when done twice, since a commit may have gone through that nobody heard of.
    """
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_away(error) or loop.time() + pause > until:
                raise
            _log.warning(
                "Write of a paid result delayed, Postgres unavailable", extra={"error": type(error).__name__}
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One unit of work: commits at the end, rolls back on an error."""
    async with engine.connect() as connection:
        wakeups.take_noted(connection)  # what one that was rolled back had left
        async with connection.begin():
            yield connection
        changed = wakeups.take_noted(connection)
    bell: Bell | None = engine.get_execution_options().get("bell")
    if bell and changed:
        bell.changed(changed)


@asynccontextmanager
async def statement(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """For one statement that is a unit of work by itself: one round trip, and its locks are held no longer
    than the server works on it."""
    async with engine.connect() as connection:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")
