"""Real servers for the tests: started once per session, a fresh database per test from a template."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from db.engine import async_engine
from db.migrate import upgrade
from infra.local import Supervisor, start
from schema.settings import Settings
from tests.support.stack import Stack, settings_of
from workflows.client import connect


@pytest.fixture(scope="session")
def servers() -> Iterator[Supervisor]:
    """The whole platform. The slow servers may still be arriving: a test waits for those it needs."""
    data = Path(tempfile.mkdtemp(prefix="facilitair-test-"))
    given = {name: os.environ[name] for name in _EXTERNAL if name in os.environ}
    supervisor = start(data, given=given)
    try:
        yield supervisor
    finally:
        supervisor.stop()
        shutil.rmtree(data, ignore_errors=True)


_EXTERNAL = (
    "TEMPORAL_ADDRESS",
    "DATABASE_URL",
    "NEO4J_URI",
    "NEO4J_USER",
    "NEO4J_PASSWORD",
    "WEAVIATE_URL",
    "WEAVIATE_GRPC_URL",
    "WEAVIATE_API_KEY",
)


@dataclass(frozen=True)
class _Template:
    admin_url: str
    name: str


@pytest.fixture(scope="session")
def _template(servers: Supervisor) -> _Template:
    servers.wait_ready("postgres", timeout_seconds=120)
    admin = servers.environment["DATABASE_URL"]
    name = f"template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    upgrade(_with_database(admin, name))
    return _Template(admin, name)


def _with_database(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture
def empty_postgres_url(servers: Supervisor) -> Iterator[str]:
    """A database with nothing in it."""
    servers.wait_ready("postgres", timeout_seconds=120)
    yield from _database(servers.environment["DATABASE_URL"], None)


@pytest.fixture
def postgres_url(_template: _Template) -> Iterator[str]:
    """A fresh database at the newest schema."""
    yield from _database(_template.admin_url, _template.name)


def _database(admin_url: str, template: str | None) -> Iterator[str]:
    name = sql.Identifier(database := f"test_{uuid.uuid4().hex[:12]}")
    create = sql.SQL("CREATE DATABASE {}").format(name)
    if template:
        create += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(create)
        yield _with_database(admin_url, database)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(postgres_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def settings(servers: Supervisor, postgres_url: str) -> Settings:
    """Settings for the session's servers and this test's own database."""
    return settings_of(dict(servers.environment) | {"DATABASE_URL": postgres_url})


@pytest.fixture
async def temporal_client(servers: Supervisor) -> Client:
    await asyncio.to_thread(servers.wait_ready, "temporal", timeout_seconds=120)
    return await connect(servers.environment["TEMPORAL_ADDRESS"], "default")


@pytest.fixture(scope="session")
async def platform(servers: Supervisor) -> AsyncIterator[Stack]:
    """The running platform with its own database, for tests that run collaborations."""
    await asyncio.to_thread(servers.wait_ready, "temporal", "simulator", "worker", timeout_seconds=180)
    settings = settings_of(dict(servers.environment))
    engine = async_engine(settings.database_url)
    yield Stack(servers, settings, engine, await connect(settings.temporal_address, "default"))
    await engine.dispose()


@pytest.fixture
def neo4j(servers: Supervisor) -> None:
    """Neo4j answers; its address stands in `settings`."""
    servers.wait_ready("neo4j", timeout_seconds=600)


@pytest.fixture
def weaviate(servers: Supervisor) -> None:
    """Weaviate answers; on a machine's first run its build takes minutes."""
    servers.wait_ready("weaviate", timeout_seconds=1_200)


@pytest.fixture
def simulator(servers: Supervisor) -> str:
    """The offline provider's address."""
    servers.wait_ready("simulator", timeout_seconds=60)
    return servers.environment["FACILITAIR_SIMULATOR_URL"]


# They start platforms of their own, Weaviate included.
_BUILDING = ("test_servers", "test_outage", "test_contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first; those that need Weaviate last, since it may still be being built."""
    order = ("unit", "replay", "security", "integration", "acceptance")

    def rank(item: pytest.Item) -> tuple[int, int]:
        folder = next((i for i, name in enumerate(order) if f"/{name}/" in str(item.path)), len(order))
        needs_weaviate = "weaviate" in getattr(item, "fixturenames", ()) or item.path.stem in _BUILDING
        return int(needs_weaviate), folder

    items.sort(key=rank)
