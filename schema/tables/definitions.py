"""The tables of definitions, and of what a tenant's definitions may name."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

from schema.tables.columns import metadata, moment, tenant_id

workflows = Table(
    "workflows",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    # JSONB forgets the order in which a person wrote the keys; this is the document as they will read it.
    Column("source", Text, nullable=False),
    Column(
        "pins", JSONB, nullable=False, server_default="{}", comment="ref of a sub-collaboration → version"
    ),
    Column("planned_by", UUID, comment="The collaboration whose agent wrote this definition."),
    Column("deprecated", Text, comment="Why nobody should start it any more."),
    Column("created_by", Text),
    moment("created_at", default=True),
    UniqueConstraint("tenant_id", "name", "version"),
    UniqueConstraint("tenant_id", "name", "sha256"),
    comment="Definitions as immutable versions.",
)

aliases = Table(
    "aliases",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True, comment="`current` is what the bare name means."),
    Column("version", Integer, nullable=False),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="Names for versions that a person may move.",
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", UUID, primary_key=True),
    tenant_id(),
    Column("name", Text, nullable=False, comment="What to start: name, name@3 or name@alias."),
    Column("token_sha256", Text, nullable=False, unique=True),
    Column("input", JSON, nullable=False, comment="Template over the request's body as `input`."),
    Column("created_by", Text),
    moment("created_at", default=True),
    moment("last_called_at"),
    comment="Addresses that start a collaboration when they are called.",
)

providers = Table(
    "providers",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True, comment="The first part of a model's id."),
    Column("kind", Text, nullable=False),
    Column("base_url", Text, comment="Null: the provider's own."),
    Column("key_ref", Text, comment="The name under which workers find the key; never the key."),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("set_by", Text),
    moment("set_at", default=True),
    CheckConstraint(
        "kind IN ('openai', 'anthropic', 'deepseek', 'openrouter', 'ollama', 'openai_compatible')",
        name="kind",
    ),
    comment="A tenant's own providers, keys and limits.",
)

provider_accounts = Table(
    "provider_accounts",
    metadata,
    Column("account", Text, primary_key=True),
    comment="Who all workers share limits with a provider for; its row lock serialises admissions.",
)

roles = Table(
    "roles",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("system", Text, nullable=False, server_default=""),
    Column("relationship", Text, nullable=False, server_default="CONTRIBUTED"),
    Column("description", Text, nullable=False, server_default=""),
    Column("skills", ARRAY(Text), nullable=False, server_default="{}"),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="A tenant's own roles, and its own idea of the built-in ones.",
)

skills = Table(
    "skills",
    metadata,
    Column("tenant_id", Text, primary_key=True, server_default="default"),
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("instructions", Text, nullable=False),
    Column("tools", ARRAY(Text), nullable=False, server_default="{}"),
    Column("set_by", Text),
    moment("set_at", default=True),
    comment="What agents can be told to be able to do.",
)
