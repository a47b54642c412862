"""Sessions of the console: with a key set, browsers that gave it once; without one, this machine's own
browser."""

import asyncio
import hmac
import secrets
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import Headers

from api.http.public_address import PublicAddress
from api.state import ApiState
from db import console_sessions

LASTS: Final = timedelta(hours=12)
_LOOKED_AT_EVERY_SECONDS: Final = 30.0
"""Interval at which an open page learns that another process ended its session."""


class Sessions:
    """People who are signed in. Postgres knows them by a hash that the key goes into: they outlive a restart,
    and not the key."""

    def __init__(self, api_key: str, public: PublicAddress | None) -> None:
        self._key = api_key
        # `__Host-` lets no other host name and no unencrypted answer set the cookie.
        self._secure = public is not None and public.is_https
        self._cookie = "__Host-facilitair_console" if self._secure else "facilitair_console"
        self._ended: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @property
    def needed(self) -> bool:
        return bool(self._key)

    async def open(self, state: ApiState, tenant: str) -> str:
        """Begin a session; the value of a Set-Cookie header."""
        id = secrets.token_urlsafe(32)
        async with state.transaction() as connection:
            await console_sessions.open_session(connection, tenant, self._hmac(id), LASTS)
        return self._set_cookie(id, int(LASTS.total_seconds()))

    async def of(self, state: ApiState, headers: Headers) -> str | None:
        """Return by what Postgres knows the session of a request; None where there is none."""
        id = self._value(headers)
        if not id:
            return None
        found = self._hmac(id)
        async with state.transaction() as connection:
            return found if await console_sessions.use(connection, found) else None

    async def end(self, state: ApiState, headers: Headers) -> str:
        """End the session of a request; the value of a Set-Cookie header."""
        if id := self._value(headers):
            found = self._hmac(id)
            async with state.transaction() as connection:
                await console_sessions.end(connection, found)
            self._end_here(found)
        return self._set_cookie("", 0)

    async def wait_for_end(self, state: ApiState, found: str) -> None:
        """Return when a session is over, wherever it was ended."""
        ended = self._ended[found]
        while not ended.is_set():
            try:
                async with asyncio.timeout(_LOOKED_AT_EVERY_SECONDS):
                    await ended.wait()
            except TimeoutError:
                # A page that is open stays open while Postgres is away.
                with suppress(DBAPIError, PoolTimeout):
                    async with state.transaction() as connection:
                        if not await console_sessions.use(connection, found):
                            self._end_here(found)

    def _end_here(self, found: str) -> None:
        """Let every open page of a session in this process know that it is over."""
        if ended := self._ended.pop(found, None):
            ended.set()

    def _hmac(self, id: str) -> str:
        return hmac.digest(self._key.encode(), id.encode("utf-8", "surrogateescape"), "sha256").hex()

    def _value(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _set_cookie(self, value: str, seconds: int) -> str:
        kept = f"{self._cookie}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return f"{kept}; Path=/; Secure" if self._secure else f"{kept}; Path=/console"
