"""Weaviate's client, and its absence as one error. Imported lazily: the client costs a second."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schema.errors import Unavailable
from schema.settings import Settings

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient


_log = logging.getLogger(__name__)


def _weaviate() -> Any:
    # authlib, which the client imports, warns of its own imports and insists on being heard: so it is
    # recorded, and the record dropped.
    with warnings.catch_warnings(record=True):
        import weaviate
    return weaviate


class WeaviateMemory:
    """One Weaviate connection per process, made at its first use and not before: gRPC does not survive a
    fork, and a Weaviate that is away stops nobody from starting."""

    def __init__(self, settings: Settings, prefix: str = "") -> None:
        self._settings = settings
        self._client: WeaviateAsyncClient | None = None
        self._connecting = asyncio.Lock()
        self.collaborations = f"{prefix}Collaboration"
        self.projections = f"{prefix}Projection"

    async def client(self) -> WeaviateAsyncClient:
        async with self._connecting:
            if self._client is None:
                client = await asyncio.to_thread(_client, self._settings)
                try:
                    with answering():
                        await client.connect()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


def _client(settings: Settings) -> WeaviateAsyncClient:
    _weaviate()
    from weaviate import WeaviateAsyncClient
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    from weaviate.connect import ConnectionParams

    http = urlsplit(settings.weaviate_url)
    grpc = urlsplit(f"//{settings.weaviate_grpc_url.split('//')[-1]}")
    secure = http.scheme == "https"
    return WeaviateAsyncClient(
        ConnectionParams.from_params(
            http_host=http.hostname or "127.0.0.1",
            http_port=http.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=grpc.hostname or "127.0.0.1",
            grpc_port=grpc.port or 50051,
            grpc_secure=secure,
        ),
        auth_client_secret=Auth.api_key(settings.weaviate_api_key) if settings.weaviate_api_key else None,
        additional_config=AdditionalConfig(timeout=Timeout(init=3, query=10, insert=60), trust_env=False),
        # They ask for /meta and compare versions with the internet's newest.
        skip_init_checks=True,
    )


@contextmanager
def answering() -> Iterator[None]:
    """Turn a Weaviate that does not answer as it should into Unavailable."""
    _weaviate()
    from grpc import RpcError
    from httpx import TransportError
    from weaviate.exceptions import WeaviateBaseError

    try:
        yield
    # The client lets errors of its transports through: of a server that dies in mid-answer, for one.
    except (WeaviateBaseError, TransportError, RpcError, OSError) as error:
        _log.warning("Weaviate unavailable", extra={"error": str(error)[:500]})
        raise Unavailable(
            "memory_unavailable", f"Weaviate does not answer as it should ({type(error).__name__})."
        ) from error
