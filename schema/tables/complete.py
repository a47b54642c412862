"""The metadata with every table declared, for migrations and whatever compares it with a database."""

from schema.tables import definitions, log, money, people, prompts, router, runs
from schema.tables.columns import metadata

DECLARED_BY = (definitions, log, money, people, prompts, router, runs)
__all__ = ["DECLARED_BY", "metadata"]
