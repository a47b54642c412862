"""Hosts that the platform may call for its users: those that the operator named, and public addresses."""

import ipaddress
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
    odd = parts.query or parts.fragment or any(ord(one) <= 32 or one == "\\" for one in base_url)
    if parts.scheme not in ("http", "https") or not host or odd:
        return repr(base_url[:200].partition("?")[0]), _FORM, "Correct it."
    port = port or (443 if parts.scheme == "https" else 80)
    if not {host, f"{host}:{port}"} & names_in(allowed):
        # Which others are allowed is nobody's business but the operator's.
        return (
            f"the host {host!r}, port {port}",
            "one that the operator allowed",
            "Let the operator add it to FACILITAIR_PROVIDER_HOSTS of the API and of the workers.",
        )
    return None


def names_in(allowed: str) -> frozenset[str]:
    """The host and host:port names of a setting, separated by commas there."""
    return frozenset(name.strip().lower() for name in allowed.split(",") if name.strip())


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, including IPv4 addresses inside IPv6
    ones."""
    plain, _, zone = address.partition("%")
    try:
        found = ipaddress.ip_address(plain)
    except ValueError:
        return False
    if zone or str(found) in _METADATA:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in one for one in _LOCAL):
            return False
        if carried := _carried(found):
            return all(is_public(str(one)) for one in carried)
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


_METADATA: Final = frozenset(("168.63.129.16", "192.0.0.192"))
"""Public by their registry, but a cloud's own servers answer there, and only to the machines inside it."""
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL: Final = (ipaddress.IPv6Network("fec0::/10"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""Site-local addresses, and NAT64 of a network's own."""
_ISATAP: Final = 0x5EFE


def _carried(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses at which a packet to an IPv6 address can come out: mapped, compatible, 6to4,
    Teredo, NAT64, ISATAP."""
    bits = int(address)
    last = ipaddress.IPv4Address(bits & 0xFFFFFFFF)
    if address.ipv4_mapped or address in _COMPATIBLE or address in _TRANSLATED:
        return [last]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    return [last] if (bits >> 32) & 0xFFFF == _ISATAP and (bits >> 48) & 0xFDFF == 0 else []
