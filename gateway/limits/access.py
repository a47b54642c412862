"""The way to a provider: turns under its limits, pauses that it asked for, and models that are left alone."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import async_engine, transaction
from db.money import traffic
from gateway.limits.circuit_breaker import FAILURES, PATIENT_SECONDS, Circuits
from gateway.limits.pauses import Pauses
from gateway.limits.rate_limiter import Caller, Permit, unlimited
from gateway.limits.turnstile import Turnstile
from gateway.limits.window import WindowPace
from gateway.provider_limits import NO_LIMITS, ProviderLimits
from gateway.request import Usage
from schema.errors import ProviderError

REFRESH_SECONDS: Final = 3.0
"""A wake-up may be lost: so often one looks without it while something is paused or open."""
FIRST_LOOK_SECONDS: Final = 1.0
"""Longest wait of a new process for what the others know; none without Postgres."""

REFUSALS: Final = frozenset(
    (
        "provider_rate_limited",
        "provider_auth",
        "provider_bad_request",
        "provider_content_policy",
        "provider_context_too_long",
    )
)
"""Only who is there can say these."""

_log = logging.getLogger(__name__)


class Account(Protocol):
    """The facts about a destination that limits need."""

    @property
    def account(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...


class Passage:
    """One call's time with the provider."""

    def __init__(self, turn: Permit | None) -> None:
        self._turn = turn

    def used(self, usage: Usage) -> None:
        """Record the call's actual usage."""
        turn, self._turn = self._turn, None
        if turn:
            turn.correct(usage.input_tokens + usage.output_tokens)

    def unused(self) -> None:
        """No call was made after all."""
        turn, self._turn = self._turn, None
        if turn:
            turn.give_back()


class Traffic:
    """One per process and event loop."""

    def __init__(self, database: str | AsyncEngine, pace: WindowPace | None = None) -> None:
        self._own = async_engine(database, pool_size=2) if isinstance(database, str) else None
        engine = self._own or database
        assert isinstance(engine, AsyncEngine)
        self._engine = engine
        self._turnstile = Turnstile(engine, pace or WindowPace())
        self._circuits = Circuits(engine)
        self._pauses = Pauses()
        self._listening: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._writing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def passage(
        self, to: Account, *, tokens: int, until: float, tenant: str = "default", priority: int = 3
    ) -> AsyncIterator[Passage]:
        """Wait for the turn of a call that may take so many tokens, and hear how it ends.

        Raises ProviderError (provider_rate_limited, provider_unavailable) where its turn cannot come before
        the loop's time `until`, and Unavailable where limits cannot be kept as Postgres does not answer.
        """
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        if not self._looked.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._looked.wait()
            self._looked.set()
        turn, probing = await self._enter(to, tokens, until, tenant, priority)
        passage, began = Passage(turn), asyncio.get_running_loop().time()
        answered: bool | None = None
        try:
            yield passage
            answered = True
            self._pauses.answered(to.account, to.model)
        except ProviderError as error:
            answered = self._failed(to, error, began)
            raise
        finally:
            self._ended(to, answered, probing)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._turnstile.close()
        if self._own is not None:
            await self._own.dispose()

    async def _enter(
        self, to: Account, tokens: int, until: float, tenant: str, priority: int
    ) -> tuple[Permit | None, bool]:
        if refusal := self._circuits.refusal(to.account, to.model):
            raise refusal
        turn = await self._turn(to, tokens, until, tenant, priority)
        try:
            return turn, await self._circuits.probes(to.account, to.model)
        except BaseException as error:
            if turn:
                turn.give_back()
            if isinstance(error, SQLAlchemyError | OSError):
                raise unlimited() from error
            raise

    async def _turn(
        self, to: Account, tokens: int, until: float, tenant: str, priority: int
    ) -> Permit | None:
        """A turn while the model is not paused; no turn is kept, and no place, for the end of a pause."""
        limits = ProviderLimits(to.requests_per_minute, to.tokens_per_minute)
        while True:
            await self._pauses.wait(to.account, to.model, until)
            if limits == NO_LIMITS:
                return None
            caller = Caller(to.provider, to.model, tokens, until)
            try:
                turn = await self._turnstile.turn(
                    to.account, limits, caller, tenant=tenant, priority=priority
                )
            except ProviderError:
                if self._pauses.refusal(to.account, to.model):
                    continue
                raise
            if not self._pauses.refusal(to.account, to.model):
                return turn
            turn.give_back()

    def _failed(self, to: Account, error: ProviderError, began: float) -> bool | None:
        """Return whether the provider failed; None if this call does not show it."""
        if error.code == "provider_rate_limited" or error.retry_after_seconds:
            asked = error.retry_after_seconds
            if seconds := self._pauses.begin(to.account, to.model, asked, began, error.message):
                self._write(self._pause(to, seconds, error.message))
        if error.code not in FAILURES:
            return True if error.code in REFUSALS else None
        waited = asyncio.get_running_loop().time() - began
        return None if error.code == "provider_timeout" and waited < PATIENT_SECONDS else False

    def _ended(self, to: Account, answered: bool | None, probing: bool) -> None:
        if probing:
            self._write(self._circuits.probed(to.account, to.model, answered))
        elif answered:
            self._circuits.answered(to.account, to.model)
        elif answered is False:
            self._write(self._circuits.failed(to.account, to.model))

    async def _pause(self, to: Account, seconds: float, reason: str) -> None:
        async with transaction(self._engine) as connection:
            await traffic.pause(connection, to.account, to.model, seconds, reason)

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        """Tell the other workers, while the caller goes on: it has other models to ask."""

        async def write() -> None:
            try:
                await work
            except (SQLAlchemyError, OSError) as error:
                _log.warning(
                    "Provider state could not be shared with other workers",
                    extra={"error": type(error).__name__},
                )

        task = asyncio.create_task(write())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _listen(self) -> None:
        url = self._engine.url.render_as_string(hide_password=False)
        async for _ in traffic.changes(url, self._patience):
            try:
                async with transaction(self._engine) as connection:
                    paused = self._pauses.learn(await traffic.paused(connection))
                for account, model in paused:
                    self._turnstile.refuse(account, model, self._pauses.refusal)
                for account, model in await self._circuits.refresh():
                    self._turnstile.refuse(account, model, self._circuits.refusal)
                self._looked.set()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("Provider pauses could not be read", extra={"error": type(error).__name__})

    def _patience(self) -> float | None:
        return REFRESH_SECONDS if self._pauses.any or self._circuits.any_open else None
