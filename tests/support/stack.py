"""A platform of its own for one measurement: real servers, free ports, a directory that goes away."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle

from db.definitions import definitions
from db.engine import async_engine, transaction
from infra.local import Supervisor, start
from schema.rules.validate import validate
from schema.settings import Settings
from schema.temporal.queues import QUEUE_COLLABORATIONS
from workflows.client import connect

SERVERS = ("temporal", "postgres", "simulator", "migrate")


@dataclass(frozen=True)
class Stack:
    supervisor: Supervisor
    settings: Settings
    engine: AsyncEngine
    client: Client

    async def store(self, definition: dict[str, Any]) -> None:
        """Upload a definition, past the HTTP door."""
        async with transaction(self.engine) as connection:
            await definitions.save(connection, "default", validate(definition).definition, "bench")

    async def start(self, name: str, input: Any, id: str) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(name, input, id=id, task_queue=QUEUE_COLLABORATIONS)

    async def names_of(self, runs: Iterable[str]) -> dict[str, str]:
        """A run's UUID → what a person calls it."""
        query = text("SELECT id::text, temporal_workflow_id FROM collaborations WHERE id = ANY(:runs)")
        async with self.engine.connect() as connection:
            found = await connection.execute(query, {"runs": [UUID(run) for run in set(runs)]})
            return {row[0]: row[1] for row in found}

    async def wait_ready(self, *names: str, timeout_seconds: float = 120.0) -> None:
        await asyncio.to_thread(self.supervisor.wait_ready, *names, timeout_seconds=timeout_seconds)

    async def provider_calls(self) -> dict[str, Any]:
        """The simulator's own books: what was really called."""
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.get(f"{self.settings.simulator_url}/_simulator/calls")
            return dict(answer.raise_for_status().json())


def settings_of(environment: dict[str, str]) -> Settings:
    """Settings from a supervisor's environment instead of our own."""
    names = {field.alias or name: name for name, field in Settings.model_fields.items()}
    known = {key: value for key, value in environment.items() if key.lower() in names or key in names}
    return Settings(**{names.get(key) or key.lower(): value for key, value in known.items()})  # type: ignore[arg-type]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables of ours for a moment: what is started in it keeps them."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@asynccontextmanager
async def stack(
    only: Collection[str] | None = (*SERVERS, "worker"), environment: Mapping[str, str] | None = None
) -> AsyncIterator[Stack]:
    """A platform with the named services (None: all), ended and removed afterwards.

    Its processes get `environment` beside what they take of ours.
    """
    data = Path(tempfile.mkdtemp(prefix="facilitair-bench-"))
    with _environment(environment or {}):
        supervisor = start(data, only, given={})
    try:
        await asyncio.to_thread(supervisor.wait_ready, timeout_seconds=120)
        settings = settings_of(dict(supervisor.environment))
        # Postgres is among what gets killed.
        engine = async_engine(settings.database_url, pre_ping=True)
        client = await connect(settings.temporal_address, settings.temporal_namespace)
        try:
            yield Stack(supervisor, settings, engine, client)
        finally:
            await engine.dispose()
    finally:
        await asyncio.to_thread(supervisor.stop)
        shutil.rmtree(data, ignore_errors=True)
