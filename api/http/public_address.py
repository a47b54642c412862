"""The address at which browsers find the API, as its operator configures it and never as a request claims."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from schema.errors import Refused
from schema.settings import Settings


@dataclass(frozen=True)
class PublicAddress:
    """The origin of FACILITAIR_PUBLIC_URL."""

    scheme: str
    host: str
    """A name or address without its port; lower case."""
    origin: str
    """Scheme, host and port as browsers write them in `Origin`."""

    @property
    def is_https(self) -> bool:
        return self.scheme == "https"


def public_address(settings: Settings) -> PublicAddress | None:
    """Return the public address, None where none is set. Raises Refused("public_url_invalid")."""
    if not settings.public_url:
        return None
    try:
        parts = urlsplit(settings.public_url)
        port = parts.port
    except ValueError:
        raise _invalid(settings.public_url) from None
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise _invalid(settings.public_url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    shown = host if port in (None, default) else f"{host}:{port}"
    return PublicAddress(parts.scheme, host, f"{parts.scheme}://{shown}")


def _invalid(found: str) -> Refused:
    return Refused(
        "public_url_invalid",
        f"found FACILITAIR_PUBLIC_URL={found!r}; expected scheme and host alone, such as "
        "https://facilitair.example.com. Serve the API at the root of a host name.",
    )


def base_url(request: HTTPConnection, settings: Settings) -> str:
    """Return the address under which others reach the API, without a slash at its end."""
    public = public_address(settings)
    return public.origin if public else str(request.base_url).rstrip("/")
