"""Requests whose address a user can influence: what was checked is what is called, and nothing else."""

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from activities.tools.http import MAX_ANSWER_BYTES, HttpTool
from gateway.client import Gateway
from schema.errors import FacilitairError, ProviderError, StepError, Unavailable
from schema.hosts import is_public
from tests.support.addresses import inside
from tests.support.providers import only_simulated

PUBLIC = "93.184.215.14"


@asynccontextmanager
async def tool(allow: str) -> AsyncIterator[HttpTool]:
    found = HttpTool(allow)
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """name → the addresses that its lookups come to, one after the other, the last one for ever."""
    found: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in found:
            return real(host, port, *args, **kwargs)
        addresses = found[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        where = (address, port or 0, 0, 0) if ":" in address else (address, port or 0)
        return [(family, socket.SOCK_STREAM, 6, "", where)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return found


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to; the public ones refuse."""
    found: list[str] = []
    real = asyncio.SelectorEventLoop.sock_connect

    async def connect(loop: Any, sock: Any, address: Any) -> None:
        found.append(address[0])
        if address[0] == PUBLIC:
            raise ConnectionRefusedError(111, "refused")
        await real(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    return found


async def code_of(calling: Any) -> str:
    try:
        await calling
    except FacilitairError as error:
        return error.code
    return "answered"


async def test_a_name_that_flips_between_two_lookups_leads_nowhere_private(
    names: dict[str, list[str]], connects: list[str]
) -> None:
    names["flip.example"] = [PUBLIC, "127.0.0.1"]
    async with inside() as server, tool("flip.example") as http:
        url = f"http://flip.example:{server.port}/"
        assert await code_of(http.call(url)) == "tool_unreachable"
    assert (connects, server.asked) == ([PUBLIC], [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "169.254.169.254",
        "10.0.0.5",
    ],
)
async def test_a_name_that_leads_inside_is_refused_before_a_connection(
    names: dict[str, list[str]], connects: list[str], address: str
) -> None:
    names["rebound.example"] = [address]
    async with tool("rebound.example") as http:
        assert await code_of(http.call("http://rebound.example:9/")) == "tool_not_allowed"
    assert connects == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "0"])
async def test_a_literal_that_is_allowed_without_its_port_must_be_public_too(host: str) -> None:
    async with inside() as server, tool(host.strip("[]")) as http:
        url = f"http://{host}:{server.port}/"
        assert await code_of(http.call(url)) == "tool_not_allowed"
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts=host.strip("[]")))
        reached = await gateway._connections().get_json(url, {}, 5.0)
        await gateway.close()
    assert (reached, server.asked) == ((0, None), [])


async def test_a_private_address_is_called_where_the_operator_named_its_port() -> None:
    async with inside() as server, tool(f"127.0.0.1:{server.port}") as http:
        answer = await http.call(f"http://127.0.0.1:{server.port}/")
    assert (answer["status"], answer["body"], len(server.asked)) == (200, "secret", 1)


async def test_a_provider_by_a_guarded_literal_is_not_called() -> None:
    async with inside() as server:
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts="127.0.0.1"))
        patience = _patience()
        with pytest.raises(Exception, match="private address"):
            await gateway._connections().open(f"http://127.0.0.1:{server.port}/v1", {}, b"{}", patience)
        await gateway.close()
    assert server.asked == []


def _patience() -> Any:
    from gateway.request import Timeouts
    from gateway.timeouts import CallDeadlines

    return CallDeadlines(Timeouts(), streamed=True)


async def test_a_proxy_of_the_environment_is_not_asked_for_a_guarded_host(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]
) -> None:
    async with inside(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        names["models.example"] = ["10.1.2.3"]
        gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts="models.example"))
        reached = await gateway._connections().get_json("http://models.example/v1", {}, 5.0)
        await gateway.close()
        async with tool("models.example") as http:
            assert await code_of(http.call("http://models.example/")) == "tool_not_allowed"
    assert (reached, proxy.asked) == ((0, None), [])


async def test_a_redirect_is_told_and_not_followed() -> None:
    async with inside() as goal:
        moved = f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{goal.port}/\r\ncontent-length: 0\r\n\r\n"
        async with inside(moved.encode()) as server, tool(f"127.0.0.1:{server.port}") as http:
            answer = await http.call(f"http://127.0.0.1:{server.port}/")
    assert (answer["status"], goal.asked) == (302, [])


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Transfer-Encoding",
        "Content-Length",
        "Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Keep-Alive",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Expect",
        "HTTP2-Settings",
        "hOsT",
    ],
)
async def test_callers_set_no_header_that_frames_or_routes_the_request(name: str) -> None:
    async with inside() as server, tool(f"127.0.0.1:{server.port}") as http:
        url = f"http://127.0.0.1:{server.port}/"
        assert await code_of(http.call(url, headers={name: "3"})) == "tool_not_allowed"
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("x y", "1"), ("x", "a\r\nhost: b"), ("x", "\0"), ("x", "é"), (":path", "/"), ("", "1")],
)
async def test_a_header_that_is_none_is_refused_with_a_code(name: str, value: str) -> None:
    async with inside() as server, tool(f"127.0.0.1:{server.port}") as http:
        url = f"http://127.0.0.1:{server.port}/"
        assert await code_of(http.call(url, headers={name: value})) == "tool_args_wrong"
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example:99999/",
        "http://[::1/",
        "http://a.example\\@b.example/",
        "http://a.example /",
        "http://a.example\r\nx: y",
        "http://user:secret@a.example/",
        "file:///etc/passwd",
        "gopher://a.example",
        "//a.example/",
        "http://",
        "http://a.example:0x50/",
        "http://\ud800/",
        "http://[v1.x]/",
        "http://a..b/",
    ],
)
async def test_an_address_that_cannot_be_read_is_refused_with_a_code(url: str) -> None:
    async with tool("a.example, b.example") as http:
        assert await code_of(http.call(url)) == "tool_not_allowed"


async def test_a_refused_host_does_not_hear_which_others_are_allowed() -> None:
    async with tool("billing.internal, vault.internal:8200") as http:
        with pytest.raises(StepError) as caught:
            await http.call("http://elsewhere.example/")
    assert caught.value.code == "tool_not_allowed"
    assert "internal" not in caught.value.message


async def test_an_answer_is_cut_while_it_is_unpacked() -> None:
    packed = gzip.compress(bytes(64 * 1024 * 1024), 9)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with inside(head + packed) as server, tool(f"127.0.0.1:{server.port}") as http:
        url = f"http://127.0.0.1:{server.port}/"
        await code_of(http.call("http://127.0.0.1:1/"))  # what is imported late is not of the answer
        tracemalloc.start()
        try:
            with pytest.raises(StepError, match="more than 4,194,304 bytes"):
                await http.call(url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 * MAX_ANSWER_BYTES


async def test_a_packed_answer_is_unpacked() -> None:
    packed = gzip.compress(b"hello")
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with inside(head + packed) as server, tool(f"127.0.0.1:{server.port}") as http:
        assert (await http.call(f"http://127.0.0.1:{server.port}/"))["body"] == "hello"


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
    ],
)
async def test_a_server_that_breaks_off_is_unreachable_and_no_bug(reply: bytes) -> None:
    async with inside(reply) as server, tool(f"127.0.0.1:{server.port}") as http:
        with pytest.raises(Unavailable) as caught:
            await http.call(f"http://127.0.0.1:{server.port}/")
    assert caught.value.code == "tool_unreachable"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:4700::1111", True),
        ("64:ff9b::5db8:d70e", True),
        ("2002:5db8:d70e::1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("168.63.129.16", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::5db8:d70e", False),
        ("2002:a00:1::1", False),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("2606:4700::1111%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2606:4700::5efe:10.0.0.1", False),
        ("2001:db8::1", False),
        ("not an address", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_a_provider_error_of_a_refused_host_names_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(only_simulated("http://127.0.0.1:9", provider_hosts="vault.internal"))
    from schema.language.catalogue import TenantProvider

    own = {"acme": TenantProvider("acme", "openai_compatible", "http://elsewhere.example/v1")}
    with pytest.raises(ProviderError) as caught:
        gateway.destination("acme/m", own)
    assert caught.value.code == "provider_auth"
    assert "vault" not in caught.value.message
