"""Connections to Postgres, and `transaction()`: the one place that commits (`statement()` apart)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from db import wakeups
from db.wakeups import Bell


def _url(database_url: str) -> str:
    """The URL as Postgres' own tools write it, with SQLAlchemy's driver filled in."""
    url = make_url(database_url)
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def sync_engine(database_url: str) -> Engine:
    return create_engine(_url(database_url), connect_args={"connect_timeout": 5})


def async_engine(
    database_url: str, *, pool_size: int = 10, pre_ping: bool = False, bell: Bell | None = None
) -> AsyncEngine:
    """`pre_ping` costs a round trip per use, so workers do without: after a restart of Postgres a stale
    connection fails one attempt there, and Temporal makes the next. A person has no such helper.

    `bell` wakes who waits for news of the runs that a transaction changed.
    """
    engine = create_async_engine(
        _url(database_url), pool_size=pool_size, max_overflow=pool_size, pool_timeout=20, pool_recycle=1800,
        pool_pre_ping=pre_ping, connect_args={"connect_timeout": 5},
    )  # fmt: skip
    return engine.execution_options(bell=bell) if bell else engine


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
