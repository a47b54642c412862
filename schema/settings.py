"""All settings, under the names that the servers' own tools use. Entry points build one and pass it on."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """Return where a platform keeps its data when nobody names a place.

    For root it is the system's place for that: Postgres runs as another user, who cannot pass root's home.
    Data that lies in root's home already stays there.
    """
    at_home = Path.home() / ".local" / "share" / "facilitair"
    if os.geteuid() != 0 or at_home.exists():
        return at_home
    return Path("/var/lib/facilitair")


class Settings(BaseSettings):
    """Read from the environment. Defaults suit a laptop; secrets have none."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    database_url: str = "postgresql://postgres@127.0.0.1:5432/facilitair"
    neo4j_uri: str = "bolt://127.0.0.1:7687"
    neo4j_user: str = "neo4j"
    neo4j_password: str = ""
    neo4j_database: str = "neo4j"
    weaviate_url: str = "http://127.0.0.1:8080"
    weaviate_grpc_url: str = "127.0.0.1:50051"
    weaviate_api_key: str = ""
    """Weaviate's key; empty if it asks for none."""

    simulator_url: str = Field(default="http://127.0.0.1:7900", alias="FACILITAIR_SIMULATOR_URL")
    openai_api_key: str = ""
    anthropic_api_key: str = ""
    openrouter_api_key: str = ""
    deepseek_api_key: str = ""
    openai_base_url: str = ""
    anthropic_base_url: str = ""
    """Address that replaces the provider's own, for example a proxy."""
    ollama_host: str = ""
    """Base address of an Ollama server, for example http://127.0.0.1:11434; empty when there is none."""

    provider_limits: str = Field(default="", alias="FACILITAIR_PROVIDER_LIMITS")
    """Requests and tokens a minute that providers allow the keys above, for example
    `openai=500/200000,anthropic=50/`; what is left out has no limit of ours."""
    provider_hosts: str = Field(default="", alias="FACILITAIR_PROVIDER_HOSTS")
    """Comma-separated host or host:port names that tenants' own providers may have; empty allows none."""
    keys_dir: str = Field(default="", alias="FACILITAIR_KEYS_DIR")
    """Directory of tenants' keys, as <tenant>/<reference>; FACILITAIR_KEY_<TENANT>__<REFERENCE> takes
    precedence."""

    host: str = Field(default="127.0.0.1", alias="FACILITAIR_HOST")
    port: int = Field(default=8700, alias="FACILITAIR_PORT")
    api_key: str = Field(default="", alias="FACILITAIR_API_KEY")
    """With a key set, every request must carry it; without one the API listens on loopback only."""
    seal_runs: bool = Field(default=False, alias="FACILITAIR_SEAL_RUNS")
    """Whether workers seal inputs and results of runs too, and take a start only with a proof. Where the API
    has a key, its workers have this: they do not get the key itself."""
    payload_keys: str = Field(default="", alias="FACILITAIR_PAYLOAD_KEYS")
    """Base64 of 32 random bytes, which seal what the platform keeps in Temporal's histories; where `api_key`
    is set also inputs and results of runs. Several with commas between: the first seals, all of them open."""
    public_url: str = Field(default="", alias="FACILITAIR_PUBLIC_URL")
    """Address at which browsers find the API, for example https://facilitair.example.com; empty if they reach
    it directly. It decides the accepted host names, webhooks' addresses and how cookies are set."""
    trusted_proxies: str = Field(default="", alias="FACILITAIR_TRUSTED_PROXIES")
    """Comma-separated addresses or networks of proxies whose X-Forwarded-For names the client; empty
    believes none."""

    max_requests: int = Field(default=1_000, ge=1, alias="FACILITAIR_MAX_REQUESTS")
    """Requests, streams and sockets that one API process serves at once; health checks are not counted."""
    max_requests_per_address: int = Field(default=500, ge=1, alias="FACILITAIR_MAX_REQUESTS_PER_ADDRESS")
    """The same for one client address."""
    max_watchers: int = Field(default=800, ge=1, alias="FACILITAIR_MAX_WATCHERS")
    """Streams and sockets among them."""
    max_silent_connections: int = Field(default=500, ge=1, alias="FACILITAIR_MAX_SILENT_CONNECTIONS")
    """Connections that have sent no whole request yet; above it the oldest are closed."""
    max_silent_per_address: int = Field(default=100, ge=1, alias="FACILITAIR_MAX_SILENT_PER_ADDRESS")
    """The same for one client address."""
    header_seconds: float = Field(default=10, gt=0, alias="FACILITAIR_HEADER_SECONDS")
    """Within this time the headers of a request must have come."""
    body_seconds: float = Field(default=60, gt=0, alias="FACILITAIR_BODY_SECONDS")
    """Within this time after its headers the body must have come."""
    first_message_seconds: float = Field(default=20, gt=0, alias="FACILITAIR_FIRST_MESSAGE_SECONDS")
    """Within this time a WebSocket must have said what it is for."""
    temporal_ui_url: str = Field(default="", alias="FACILITAIR_TEMPORAL_UI_URL")
    """Address of Temporal's own pages; empty if unknown."""
    http_tool_allow: str = Field(default="", alias="FACILITAIR_HTTP_TOOL_ALLOW")
    """Comma-separated host or host:port names that the http tool may call; empty allows none."""

    max_starts_per_minute: int = Field(default=6_000, ge=1, alias="FACILITAIR_MAX_STARTS_PER_MINUTE")
    """Runs that a tenant may start a minute through all doors together, and at once after a quiet minute."""
    max_running_runs: int = Field(default=20_000, ge=1, alias="FACILITAIR_MAX_RUNNING_RUNS")
    """Runs of a tenant that are under way at the same time, sub-collaborations included."""
    max_sub_collaborations: int = Field(
        default=10_000, ge=1, le=10_000, alias="FACILITAIR_MAX_SUB_COLLABORATIONS"
    )
    """Sub-collaborations that one start may lead to, those within each other included. An upload is checked
    against the largest value, which is `schema.rules.size.MAX_TREE_CHILDREN`."""
    max_schedules: int = Field(default=200, ge=0, alias="FACILITAIR_MAX_SCHEDULES")
    min_schedule_seconds: float = Field(default=10, ge=1, alias="FACILITAIR_MIN_SCHEDULE_SECONDS")
    """The shortest time between two starts that a schedule may ask for."""
    max_overlapping_runs: int = Field(default=100, ge=1, alias="FACILITAIR_MAX_OVERLAPPING_RUNS")
    """Runs of one schedule with the overlap `allow_all` that are under way at the same time."""
    max_webhooks: int = Field(default=200, ge=0, alias="FACILITAIR_MAX_WEBHOOKS")
    max_webhook_calls_per_minute: int = Field(
        default=600, ge=1, alias="FACILITAIR_MAX_WEBHOOK_CALLS_PER_MINUTE"
    )
    """Calls of one webhook per minute."""
    max_definition_bytes: int = Field(default=1 << 30, ge=1, alias="FACILITAIR_MAX_DEFINITION_BYTES")
    """Bytes of all stored versions of a tenant's definitions, those that agents planned included."""

    tokens_archive_after_days: float = Field(default=7, ge=0, alias="FACILITAIR_TOKENS_ARCHIVE_AFTER_DAYS")
    """Tokens of runs that ended longer ago are kept packed, in a tenth of the room."""
    tokens_keep_days: float = Field(default=0, ge=0, alias="FACILITAIR_TOKENS_KEEP_DAYS")
    """Packed tokens are deleted after this long; 0 keeps them for ever."""

    data: str = Field(default="", alias="FACILITAIR_DATA")
    """The data directory of a platform on this machine; empty where the servers are elsewhere."""
    disk_reserve_mib: float = Field(default=512, ge=0, alias="FACILITAIR_DISK_RESERVE_MIB")
    """No run begins while less than this is free for the data directory."""

    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_traces_endpoint: str = ""
    capture_message_content: bool = Field(
        default=False, alias="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    )

    @property
    def seals_runs(self) -> bool:
        """True if the whole run is sealed, and starts need a proof."""
        return self.seal_runs or bool(self.api_key)
