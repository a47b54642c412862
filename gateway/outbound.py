"""Connections to addresses that users can influence: the address that was checked is the one that is called.

The check stands where the socket is made. So it sees what a name led to this time, and IP literals in every
spelling; nothing is looked up a second time. Import it late: aiohttp takes a fifth of a second.
"""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import aiohttp
import httpx
from yarl import URL

from schema.hosts import is_public

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
Reach = Literal["anywhere", "public", "nowhere"]
"""Where a host:port may lead: into the private network too, to public addresses only, or nowhere."""


class PrivateAddress(OSError):
    """A name that must lead to a public address led to another one."""

    def __init__(self) -> None:
        # Without the address: it would tell callers how names are resolved inside. And always the same
        # words, so that a name with several private addresses raises this error and not a list of them.
        super().__init__("it leads to a private address")


class HostNotAllowed(OSError):
    """The operator did not name the host."""

    def __init__(self) -> None:
        super().__init__("the operator did not allow this host")


class Outbound:
    """The sessions of a process: one for places that may be private, one that meets public addresses only.

    Neither follows cookies, logins or proxies of the environment by itself. Make it where the loop runs.
    """

    def __init__(
        self,
        reach: Callable[[str], Reach],
        *,
        connections: int = 100,
        timeout: aiohttp.ClientTimeout | None = None,
        headers: Mapping[str, str] | None = None,
        traces: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self._reach = reach
        certificates = _certificates()

        def session(factory: Callable[[AddressInfo], socket.socket] | None) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=connections,
                    ssl=certificates,
                    resolver=aiohttp.ThreadedResolver(),
                    ttl_dns_cache=60,
                    socket_factory=factory,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=timeout or aiohttp.ClientTimeout(),
                headers=headers,
                trace_configs=list(traces),
                trust_env=False,
            )

        self._anywhere, self._public = session(None), session(_public_socket)

    def reach(self, address: URL) -> Reach:
        """Return where the address may lead.

        Takes the parsed address that is then called, so that no second parser can read another host in it.
        """
        for host in (address.host, address.raw_host):
            if host and (found := self._reach(place_of(host, address.port))) != "nowhere":
                return found
        return "nowhere"

    def session(self, address: URL) -> aiohttp.ClientSession:
        """The session to call the address with. Raises HostNotAllowed."""
        match self.reach(address):
            case "anywhere":
                return self._anywhere
            case "public":
                return self._public
            case "nowhere":
                raise HostNotAllowed

    async def close(self) -> None:
        await self._anywhere.close()
        await self._public.close()


def place_of(host: str, port: int | None) -> str:
    """The host:port as the operator writes it."""
    return f"{host.lower()}:{port}"


def _public_socket(info: AddressInfo) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise PrivateAddress
    return socket.socket(family=family, type=kind, proto=protocol)


def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()
