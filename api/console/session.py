"""Who may see the console: with a key set, who has given it once; without one, this machine's own browser."""

import hashlib
import hmac
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from api.auth import host_of, is_loopback

COOKIE: Final = "facilitair_console"
LASTS_SECONDS: Final = 12 * 3600


class Sessions:
    """Signed cookies. What signs them is derived from the key: they outlive a restart, and not the key."""

    def __init__(self, api_key: str) -> None:
        self._key = api_key
        self._secret = hmac.digest(api_key.encode(), b"facilitair console session", "sha256")

    @property
    def needed(self) -> bool:
        return bool(self._key)

    def is_key(self, given: str) -> bool:
        return secrets.compare_digest(given.strip().encode(), self._key.encode())

    def new(self, *, secure: bool) -> str:
        """The value of a Set-Cookie header."""
        text = f"{int(time.time()) + LASTS_SECONDS}.{secrets.token_urlsafe(12)}"
        return _cookie(f"{text}.{self._sign(text)}", LASTS_SECONDS, secure)

    def holds(self, headers: Headers) -> bool:
        """Whether a request may go on; raises nothing, whatever it carries."""
        if not self._key:
            return True
        text, _, signature = _value(headers).rpartition(".")
        until = text.partition(".")[0]
        known = secrets.compare_digest(self._sign(text).encode(), signature.encode())
        return known and until.isdecimal() and int(until) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def forgotten() -> str:
    """The Set-Cookie header of who leaves."""
    return _cookie("", 0, secure=False)


def is_own(scope: Scope, *, loopback_only: bool) -> bool:
    """Whether the console's own pages ask, and not another web page through somebody's browser."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if loopback_only and not is_loopback(host_of(f"//{host}") or ""):
        return False
    origin = headers.get("origin")
    if origin is None:
        return scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return _netloc_of(origin) == host.lower()


def _value(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _cookie(value: str, seconds: int, secure: bool) -> str:
    kept = f"{COOKIE}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return f"{kept}; Secure" if secure else kept


def _netloc_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
