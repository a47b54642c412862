"""Neo4j's driver, and its absence as one error. Imported lazily: the driver costs start-up time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schema.errors import Unavailable
from schema.settings import Settings

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncSession, Driver, Session

MAX_READERS: Final = 3
"""People's own queries at a time; further ones wait until their time is up."""
READ_AT_ONCE: Final = 100
"""Rows that are fetched before they are counted."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphDrivers:
    """The drivers of a process. The database is always named: without it every query asks for the home
    database first."""

    driver: AsyncDriver
    reader: Driver
    """For people's own queries, in threads: the driver unpacks their results in Python, and a single row
    may be so large that this would hold the event loop."""
    readers: ThreadPoolExecutor
    database: str

    def session(self, *, read_only: bool = False) -> AsyncSession:
        from neo4j import READ_ACCESS, WRITE_ACCESS

        mode = READ_ACCESS if read_only else WRITE_ACCESS
        return self.driver.session(database=self.database, default_access_mode=mode)

    def reading_session(self) -> Session:
        """A session for one of the `readers`."""
        from neo4j import READ_ACCESS

        return self.reader.session(
            database=self.database, default_access_mode=READ_ACCESS, fetch_size=READ_AT_ONCE
        )

    async def close(self) -> None:
        self.readers.shutdown(wait=False, cancel_futures=True)
        await self.driver.close()
        await asyncio.to_thread(self.reader.close)


def connect(settings: Settings) -> GraphDrivers:
    """A graph that connects at its first use, so that a Neo4j which is away stops nobody from starting."""
    from neo4j import AsyncGraphDatabase, GraphDatabase

    options: dict[str, Any] = {
        "auth": (settings.neo4j_user, settings.neo4j_password) if settings.neo4j_password else None,
        "connection_timeout": 3,
        "connection_acquisition_timeout": 5,
        # Retrying is Temporal's: the driver gives up at once and the activity is tried again.
        "max_transaction_retry_time": 0,
        # An empty graph would warn of every label and property that it does not have yet.
        "notifications_min_severity": "OFF",
    }
    return GraphDrivers(
        AsyncGraphDatabase.driver(settings.neo4j_uri, **options),
        GraphDatabase.driver(settings.neo4j_uri, **options),
        ThreadPoolExecutor(MAX_READERS, thread_name_prefix="graph"),
        settings.neo4j_database,
    )


@contextmanager
def answering() -> Iterator[None]:
    """Turn a Neo4j that does not answer, or not now, into Unavailable."""
    from neo4j.exceptions import AuthError, DriverError, Neo4jError

    try:
        yield
    except (DriverError, OSError) as error:
        _log.warning("Neo4j unavailable", extra={"error": str(error)[:500]})
        raise Unavailable("graph_unavailable", f"Neo4j does not answer ({type(error).__name__}).") from error
    except AuthError as error:
        raise Unavailable(
            "graph_unavailable",
            f"Neo4j refuses the login: {error.message}. Check NEO4J_USER and NEO4J_PASSWORD.",
        ) from error
    except Neo4jError as error:
        if error.is_retryable():
            raise Unavailable("graph_unavailable", f"Neo4j cannot answer now: {error.message}") from error
        raise
