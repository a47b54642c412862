"""Bring a database to the newest schema: `python -m db.migrate`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from db.engine import sync_engine

_ROOT = Path(__file__).resolve().parent.parent


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, bound to a connection when one is given."""
    result = Config(str(_ROOT / "alembic.ini"))
    result.set_main_option("script_location", str(_ROOT / "migrations"))
    if connection is not None:
        result.attributes["connection"] = connection
    return result


def upgrade(database_url: str, revision: str = "head") -> None:
    """Upgrade to `revision`; safe to run from several processes at once."""
    engine = sync_engine(database_url)
    try:
        with engine.connect() as connection:
            command.upgrade(config(connection), revision)
            connection.commit()
    finally:
        engine.dispose()


if __name__ == "__main__":
    from schema.settings import Settings

    upgrade(Settings().database_url)
