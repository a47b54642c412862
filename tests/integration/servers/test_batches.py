"""Statements that many callers share."""

import asyncio

import psycopg
import pytest

from db.batches import ActiveTasks, Batches

_HALF = "SELECT key, 10 / number FROM json_to_recordset(%s::json) AS given(key text, number int)"


async def test_who_gave_what_cannot_be_answered_takes_nobody_along(postgres_url: str) -> None:
    batches = Batches(postgres_url, _HALF, ActiveTasks())
    try:
        asked = [batches.ask(str(number), {"number": number}) for number in (5, 0, 2)]
        asked.append(batches.ask("text", {"number": "\ud800"}))
        five, zero, two, text = await asyncio.gather(*asked, return_exceptions=True)
        assert (five, two) == (("5", 2), ("2", 5))
        assert isinstance(zero, psycopg.errors.DivisionByZero)
        assert isinstance(text, UnicodeEncodeError)
        assert await batches.ask("1", {"number": 1}) == ("1", 10)
    finally:
        await batches.close()


async def test_a_broken_line_is_everybodys_and_mends(postgres_url: str) -> None:
    batches = Batches(postgres_url, _HALF, ActiveTasks())
    try:
        assert await batches.ask("1", {"number": 1}) == ("1", 10)
        mine = await batches._line.open()
        async with await psycopg.AsyncConnection.connect(
            postgres_url.replace("+psycopg", ""), autocommit=True
        ) as other:
            await other.execute("SELECT pg_terminate_backend(%s)", (mine.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            await batches.ask("1", {"number": 1})
        assert await batches.ask("2", {"number": 2}) == ("2", 5)
    finally:
        await batches.close()
