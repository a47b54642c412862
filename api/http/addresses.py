"""Client addresses as limits count them."""

import ipaddress
from typing import Final

from starlette.types import Scope

IN_PROCESS: Final = "console"
"""The client of a request that a page of the console makes within this process."""


def client_address(scope: Scope) -> str:
    """Return the address of a request's client as `address_of` does."""
    return address_of((scope.get("client") or ("",))[0])


def address_of(host: str) -> str:
    """Return an address as limits count it: for IPv6 its network of 64 bits, which one person has whole;
    empty for what is none."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False).network_address)
