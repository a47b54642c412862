"""Where tenants' own providers may be: hosts that the operator named, and nothing else."""

from typing import Final
from urllib.parse import urlsplit

_FORM: Final = "an address such as https://models.example.com/v1, without a login, a query or a fragment"


def fault_of(base_url: str, allowed: str) -> tuple[str, str, str] | None:
    """(found, expected, what to do) when a provider must not be called there.

    `allowed` is FACILITAIR_PROVIDER_HOSTS: names host or host:port, separated by commas, compared exactly.
    """
    try:
        parts = urlsplit(base_url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "an address that cannot be read", _FORM, "Correct it."
    if parts.username or parts.password:
        # Never quoted: it holds a secret.
        return "an address with a login in it", _FORM, "Give the key by key_ref."
    odd = parts.query or parts.fragment or any(ord(one) <= 32 for one in base_url)
    if parts.scheme not in ("http", "https") or not host or odd:
        return repr(base_url[:200].partition("?")[0]), _FORM, "Correct it."
    port = port or (443 if parts.scheme == "https" else 80)
    names = frozenset(name.strip().lower() for name in allowed.split(",") if name.strip())
    if not {host, f"{host}:{port}"} & names:
        return (
            f"the host {host!r}, port {port}",
            f"one that the operator allowed: {', '.join(sorted(names)) or 'none are'}",
            "Let the operator add it to FACILITAIR_PROVIDER_HOSTS of the API and of the workers.",
        )
    return None
