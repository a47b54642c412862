"""Tell our own pages and programs from web pages of other origins, before anything of a request is read.

A browser says where a request comes from (`Origin`, `Sec-Fetch-Site`) and under which name it knows us
(`Host`); a page cannot change these. A program sends no `Origin` and no `Sec-Fetch-*`.
"""

import ipaddress
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from api.http.public_address import PublicAddress
from schema.errors import Refused

HEALTH_PATHS: Final = (
    "/health",
    "/health/live",
    "/health/ready",
    "/v1/health",
    "/v1/health/live",
    "/v1/health/ready",
)
HOOKS: Final = "/hooks/"
CODEC: Final = "/console/codec/"
_CONSOLE: Final = "/console"
# The only GET that starts something: an EventSource can send nothing else.
_STARTING_PATHS: Final = ("/stream/collaborate", "/v1/stream/collaborate")

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_OWN_SITES: Final = ("same-origin", "none")
_READING: Final = ("GET", "HEAD")


def is_console(path: str) -> bool:
    """Return whether a path belongs to the console, whose login asks for the key."""
    return path in ("/", _CONSOLE) or path.startswith(f"{_CONSOLE}/")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    found = _ip(host)
    return found is not None and found.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


class Origins:
    """The names that the API answers to, and the pages that may ask."""

    def __init__(
        self, *, keyed: bool, host: str, public: PublicAddress | None, temporal_ui: str = ""
    ) -> None:
        """`temporal_ui`: the origin of Temporal's own pages, which may ask for what is sealed."""
        self._keyed, self._public = keyed, public
        self._temporal_ui = temporal_ui.rstrip("/").lower()
        self._names = {host.lower()} | ({public.host} if public else set())

    def refusal(self, scope: Scope) -> Refused | None:
        """Return why a request of HTTP or a WebSocket is refused, None where it may go on."""
        headers = Headers(scope=scope)
        path: str = scope["path"]
        hosts = headers.getlist("host")
        parts = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if parts is None or not (path.startswith(HOOKS) or self._is_ours(parts[1].lower())):
            return self._unknown_host(hosts)
        if path in HEALTH_PATHS:
            return None
        if path.startswith(CODEC) and self._temporal_ui:
            origins = [origin.lower() for origin in headers.getlist("origin")]
            return None if origins == [self._temporal_ui] else _foreign(f"the origins {origins}"[:200])
        for origin in headers.getlist("origin"):
            if not self._is_own(origin, parts):
                return _foreign(f"the origin {origin[:200]!r}")
        foreign = [one for one in headers.getlist("sec-fetch-site") if one not in _OWN_SITES]
        if foreign and not _opens_console(scope, headers):
            return _foreign(f"`Sec-Fetch-Site: {foreign[0][:40]}`")
        if path in _STARTING_PATHS:
            return _not_an_event_source(headers, self, parts)
        if is_console(path) and not _says_its_origin(scope, headers):
            return _foreign("a change without an origin")
        return None

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name):
            return True
        if not self._keyed:
            return False
        # A page under an attacker's name can be pointed at us (DNS rebinding), one under an address cannot.
        return self._public is None or name in self._names or _ip(name) is not None

    def _is_own(self, origin: str, host: re.Match[str]) -> bool:
        if self._public is not None:
            if origin.lower() == self._public.origin:
                return True
            # Under the public name only the public scheme and port are ours.
            if host[1].lower() == self._public.host:
                return False
        scheme, _, rest = origin.lower().partition("://")
        default = _DEFAULT_PORTS.get(scheme)
        parts = _HOST.fullmatch(rest)
        if default is None or parts is None:
            return False
        return (parts[1], parts[2] or default) == (host[1].lower(), host[2] or default)

    def is_own_address(self, url: str, host: re.Match[str]) -> bool:
        """Return whether a page's whole address is of our own origin."""
        scheme, separator, rest = url.partition("://")
        return bool(separator) and self._is_own(f"{scheme}://{rest.partition('/')[0]}", host)

    def _unknown_host(self, hosts: list[str]) -> Refused:
        found = f"the host {hosts[0][:200]!r}" if len(hosts) == 1 else f"{len(hosts)} Host headers"
        if not self._keyed:
            expected = (
                "this machine's own name for itself (127.0.0.1 or localhost). Set FACILITAIR_API_KEY to be "
                "reached under any other."
            )
        elif self._public is not None:
            expected = f"{self._public.host}. FACILITAIR_PUBLIC_URL says under which name the API is reached."
        else:
            expected = "one host name or address, with or without a port."
        return Refused("origin_refused", f"found {found}; expected {expected}")


def _opens_console(scope: Scope, headers: Headers) -> bool:
    """Return whether a person follows a link to a page of the console. Nothing changes by opening one."""
    return (
        scope["type"] == "http"
        and scope["method"] in _READING
        and is_console(scope["path"])
        and headers.getlist("sec-fetch-mode") == ["navigate"]
        and headers.getlist("sec-fetch-dest") == ["document"]
    )


def _says_its_origin(scope: Scope, headers: Headers) -> bool:
    """Return whether a change through the console's cookie comes from a browser that says from where."""
    if scope["type"] == "http" and scope["method"] in _READING:
        return True
    return "origin" in headers or "sec-fetch-site" in headers


def _not_an_event_source(headers: Headers, origins: Origins, host: re.Match[str]) -> Refused | None:
    """Return why a GET may not start a run. Our own pages' EventSource may, and a program may; an address
    that is opened, or loaded as an image, may not."""
    told = {name: headers.get(name) for name in ("sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")}
    if not any(told.values()):
        # Older browsers send none of these: then the page's address must be one of ours.
        browser = headers.get("user-agent", "").startswith("Mozilla/")
        if not browser or origins.is_own_address(headers.get("referer", ""), host):
            return None
        return _foreign("a browser that does not say from which page it asks")
    site, mode, dest = told.values()
    if site == "same-origin" and mode != "navigate" and dest in ("empty", None):
        return None
    return _foreign(f"`Sec-Fetch-Site: {site}`, `Sec-Fetch-Mode: {mode}`, `Sec-Fetch-Dest: {dest}`"[:200])


def _foreign(found: str) -> Refused:
    return Refused(
        "origin_refused",
        f"found {found}; expected a page of the API's own origin, or a program. Serve your page from the "
        "same origin, through a proxy.",
    )
