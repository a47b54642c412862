"""Connections past SQLAlchemy, for rows by the thousand a second: it would cost more than all the rest."""

import contextlib
from typing import Any

import psycopg
from psycopg.rows import AsyncRowFactory, tuple_row
from sqlalchemy import make_url


async def connect(database_url: str) -> psycopg.AsyncConnection[Any]:
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)


class Line:
    """One connection, made when it is first asked for, and anew after it was closed because it broke."""

    def __init__(self, database_url: str, rows: AsyncRowFactory[Any] = tuple_row) -> None:
        self._url, self._rows = database_url, rows
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def open(self) -> psycopg.AsyncConnection[Any]:
        """Raises psycopg.Error."""
        if self._connection is None:
            self._connection = await connect(self._url)
            self._connection.row_factory = self._rows
        return self._connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()
