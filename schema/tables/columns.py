"""Shared parts of all tables: their metadata, and common columns."""

from typing import Final

from sqlalchemy import (
    Column,
    DateTime,
    MetaData,
    Text,
    text,
)
from sqlalchemy.types import UserDefinedType

EMBEDDING_WIDTH: Final = 384

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class XID8(UserDefinedType[str]):
    """Postgres' 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def tenant_id() -> Column[str]:
    return Column("tenant_id", Text, nullable=False, server_default="default")


def moment(name: str, *, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), server_default=text("now()") if default else None)
