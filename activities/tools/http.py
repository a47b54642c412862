"""The http tool: only hosts that the operator allowed, no redirects elsewhere, bounded answers."""

import asyncio
import ipaddress
import json
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from schema.errors import StepError, Unavailable

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_SECONDS: Final = 30.0


class HttpTool:
    """`allow` holds host or host:port names, compared exactly; everything else is refused before a
    connection is made, redirects included."""

    def __init__(self, allow: str) -> None:
        self._allow = frozenset(name.strip().lower() for name in allow.split(",") if name.strip())
        self._client = httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def call(
        self, url: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        await self._check(url)
        content = body.encode() if isinstance(body, str) else None
        try:
            async with self._client.stream(
                method, url, headers=headers, content=content,
                json=body if body is not None and content is None else None,
            ) as answer:  # fmt: skip
                data = b""
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise StepError(
                            "tool_failed", f"{url} answered more than {MAX_ANSWER_BYTES:,} bytes."
                        )
        except httpx.TransportError as error:
            raise Unavailable("tool_unreachable", f"{url} does not answer: {error}") from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unavailable("tool_unreachable", f"{url} answered {answer.status_code}.")
        return {
            "status": answer.status_code,
            "headers": dict(answer.headers),
            "body": _decoded(answer.headers.get("content-type", ""), data),
        }

    async def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", None
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise StepError(
                "tool_not_allowed",
                f"found the address {url[:200]!r}; expected http(s)://host/… without a login.",
            )
        if not {host, f"{host}:{port}"} & self._allow:
            raise StepError(
                "tool_not_allowed",
                f"found the host {host!r}; expected one the operator allowed: "
                f"{', '.join(sorted(self._allow)) or 'none are'}. Set FACILITAIR_HTTP_TOOL_ALLOW.",
            )
        await self._check_target(host, port)

    async def _check_target(self, host: str, port: int | None) -> None:
        """A public name must not lead into the private network, unless it is allowed with its port."""
        if f"{host}:{port}" in self._allow:
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable("tool_unreachable", f"the host {host!r} cannot be found: {error}") from None
        for entry in found:
            address = ipaddress.ip_address(entry[4][0])
            if not address.is_global:
                raise StepError(
                    "tool_not_allowed",
                    f"found that {host!r} is the private address {address}; expected a public one. "
                    "Allow it together with its port if it is meant.",
                )


def _decoded(content_type: str, data: bytes) -> Any:
    text = data.decode("utf-8", "replace")
    if "json" in content_type:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
