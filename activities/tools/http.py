"""The http tool: only hosts that the operator allowed, no redirects, bounded answers."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from schema.errors import StepError, Unavailable
from schema.hosts import names_in
from schema.values.foreign_json import NotJson, UnusableJson, read_json

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from gateway.outbound import Outbound, Reach

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
MAX_HEAD_BYTES: Final = 16 * 1024
"""Bound on the headers that a caller adds."""
_SOCKET_TIMEOUT_SECONDS: Final = 30.0
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_OURS: Final = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "http2-settings",
    )
)
"""Headers that say where a request goes, where it ends, or what becomes of the connection."""


class HttpTool:
    """`allow` holds host or host:port names, compared exactly; everything else is refused before a
    connection is made. A host that is named without its port must lead to a public address."""

    def __init__(self, allow: str) -> None:
        self._allow = names_in(allow)
        self._outbound: Outbound | None = None

    async def close(self) -> None:
        if self._outbound is not None:
            await self._outbound.close()

    async def call(
        self, url: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        import aiohttp  # a fifth of a second, which no worker waits for that calls nobody

        from gateway.outbound import PrivateAddress

        _check_headers(headers or {})
        address, session = self._session(url)
        try:
            async with session.request(
                method, address, headers=headers, allow_redirects=False, **_content(body)
            ) as answer:
                data = await _read(answer, address)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddress):
                raise StepError(
                    "tool_not_allowed",
                    f"found that {address.host!r} leads to a private address; expected a public one. "
                    "Allow it together with its port if it is meant.",
                ) from None
            known = not isinstance(error, aiohttp.ClientConnectorDNSError)
            reason = "there is no connection" if known else "the host cannot be found"
            raise Unavailable("tool_unreachable", f"{address} does not answer: {reason}.") from None
        except aiohttp.InvalidURL:
            raise _unreadable(url) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(
                "tool_unreachable", f"{address} does not answer as HTTP: {type(error).__name__}."
            ) from None
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable("tool_unreachable", f"{address} answered {answer.status}.")
        return {
            "status": answer.status,
            "headers": _joined(answer.headers.items()),
            "body": _decoded(answer.headers.get("content-type", ""), data),
        }

    def _session(self, url: str) -> tuple["URL", "aiohttp.ClientSession"]:
        """The address, and the session that may call it."""
        import aiohttp

        from gateway.outbound import HostNotAllowed, Outbound

        address = _address(url)
        if self._outbound is None:
            waiting = aiohttp.ClientTimeout(
                total=None, sock_connect=_SOCKET_TIMEOUT_SECONDS, sock_read=_SOCKET_TIMEOUT_SECONDS
            )
            self._outbound = Outbound(self._reach, timeout=waiting)
        try:
            return address, self._outbound.session(address)
        except HostNotAllowed:
            # Which others are allowed is nobody's business but the operator's.
            raise StepError(
                "tool_not_allowed",
                f"found the host {address.host!r}; expected one that the operator allowed. Let the operator "
                "add it to FACILITAIR_HTTP_TOOL_ALLOW.",
            ) from None

    def _reach(self, place: str) -> "Reach":
        if place in self._allow:
            return "anywhere"
        return "public" if place.rpartition(":")[0] in self._allow else "nowhere"


def _address(url: str) -> "URL":
    from yarl import URL

    refused = _unreadable(url)
    if any(ord(one) <= 32 or one == "\\" or 0xD800 <= ord(one) <= 0xDFFF for one in url):
        raise refused
    try:
        address = URL(url)
        host, port = address.host, address.port
    except (ValueError, TypeError):
        raise refused from None
    if address.scheme not in ("http", "https") or not host or not port or address.user is not None:
        raise refused
    if address.password is not None:
        raise refused
    return address


def _unreadable(url: str) -> StepError:
    return StepError(
        "tool_not_allowed",
        f"found the address {url[:200]!r}; expected http(s)://host/… without a login or spaces.",
    )


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        low = name.lower()
        if low in _OURS or low.startswith("proxy-"):
            raise StepError(
                "tool_not_allowed",
                f"found the header {name!r}; expected none that says where the request goes or how it is "
                "framed. Leave it out: the tool sets it.",
            )
        if not _TOKEN.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise StepError(
                "tool_args_wrong",
                f"found the header {name[:100]!r} with characters that no header has; expected ASCII without "
                "line ends.",
            )
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > MAX_HEAD_BYTES:
        raise StepError(
            "tool_args_wrong", f"found headers of more than {MAX_HEAD_BYTES:,} bytes; send less in them."
        )


def _content(body: Any) -> dict[str, Any]:
    if body is None:
        return {}
    if not isinstance(body, str):
        return {"json": body}
    # Without a content type of its own, as before: a text may be anything.
    return {"data": body.encode("utf-8", "replace"), "skip_auto_headers": ("content-type",)}


async def _read(answer: "aiohttp.ClientResponse", address: "URL") -> bytes:
    """The body, unpacked piece by piece and never further than its limit."""
    data = bytearray()
    while piece := await answer.content.readany():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            answer.close()
            raise StepError("tool_failed", f"{address} answered more than {MAX_ANSWER_BYTES:,} bytes.")
    return bytes(data)


def _joined(headers: Any) -> dict[str, str]:
    """Headers by their names in lower case; values of one name are joined by commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        low = name.lower()
        found[low] = f"{found[low]}, {value}" if low in found else value
    return found


def _decoded(content_type: str, data: bytes) -> Any:
    text = data.decode("utf-8", "replace")
    if "json" not in content_type:
        return text
    try:
        return read_json(text)
    except UnusableJson as error:
        raise StepError("tool_failed", f"the answer's JSON cannot be used: {error}.") from None
    except NotJson:
        return text
