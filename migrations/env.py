"""Alembic's entry: one connection, given by db.migrate or made from DATABASE_URL."""

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from db.engine import sync_engine
from schema.settings import Settings
from schema.tables.columns import XID8
from schema.tables.complete import metadata

ischema_names["xid8"] = XID8


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=False)
    with context.begin_transaction():
        # Two processes may start at once; the second waits and finds nothing to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(712043)"))
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = sync_engine(Settings().database_url)
    with engine.connect() as connection:
        run(connection)
    engine.dispose()
