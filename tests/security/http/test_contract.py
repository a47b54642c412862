"""The HTTP API keeps to its OpenAPI document, whatever is sent."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.dialects.frames import POSITION_OF_RUN, parse
from api.http import cursors
from bench.security import contract
from schema.live import parse_place
from schema.settings import Settings

_DEEP: Final = b"[" * 50_000 + b"]" * 50_000
_BODIES: Final = {
    "NaN": b'{"input": NaN, "usd": NaN, "ok": NaN, "seed": NaN}',
    "more than a double": b'{"usd": 1e999, "seed": 1e999, "version": 1e999}',
    "an integer of 5,000 digits": b'{"seed": %s}' % (b"9" * 5_000),
    "an integer of 25 digits": b'{"version": 9999999999999999999999999, "tokens": 9999999999999999999999999}',
    "half a surrogate pair": rb'{"name": "\ud800", "text": "\ud800"}',
    "NUL": rb'{"name": "\u0000", "text": "\u0000", "cypher": "\u0000"}',
    "a key with NUL": rb'{"\u0000": 1}',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "deep nesting": _DEEP,
    "a deep value": b'{"input": %s, "definition": %s}' % (_DEEP, _DEEP),
    "a key twice": b'{"name": 1, "name": 2}',
    "half of a document": b'{"name": ',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "true": b"true",
}
_VALUES: Final = {
    "NUL": "%00",
    "no UTF-8": "%FF%FE",
    "half a surrogate pair": "%ED%A0%80",
    "no percent-encoding": "%zz%",
    "a line break": "x%0A",
    "25 digits": "9999999999999999999999999",
    "more than a double": "1e999",
    "NaN": "NaN",
    "digits of Bengal": quote("১২"),
    "10,000 letters": "x" * 10_000,
    "the largest place": "ffffffffffffffff.ffffffffffffffff",
}
_UUID: Final = "01a22d53-879e-7cfd-b8f3-c80000000000"
_EXAMPLES: Final = {"id": _UUID, "number": "1", "model": "openai/x"}
_CONTENT_TYPES: Final = ("application/json", "application/yaml")


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    # A fault of the platform is an answer here, as it is to a client.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield client


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _filled(path: str, name: str = "", value: str = "") -> str:
    """The path with an example for each parameter, but for one of them the value."""
    return re.sub(
        r"\{(\w+)\}", lambda found: value if found[1] == name else _EXAMPLES.get(found[1], "x"), path
    )


async def _faults(
    http: httpx.AsyncClient, method: str, path: str, operation: dict[str, Any], what: str, **request: Any
) -> list[str]:
    """What is wrong with an answer; nothing where it is one that the document promises."""
    url = httpx.URL("http://127.0.0.1", raw_path=path.encode())
    answer = await http.request(method, url, **request)
    # An address that is none of the operation's any more, as one with a slash more.
    known = answer.status_code == 404 and answer.json()["code"] == "address_unknown"
    kind = answer.headers.get("content-type", "").partition(";")[0]
    documented = operation["responses"].get(str(answer.status_code), {})
    if answer.status_code < 500 and (known or (documented and kind in documented.get("content", {kind: {}}))):
        return []
    return [f"{method} {operation['operationId']} {what}: {answer.status_code} {kind} {answer.text[:200]}"]


async def test_whatever_is_sent_as_a_body_gets_an_answer_that_is_documented(http: httpx.AsyncClient) -> None:
    found: list[str] = []
    for method, path, operation in _operations():
        for what, body in _BODIES.items() if method in ("POST", "PUT") else ():
            for kind in operation.get("requestBody", {}).get("content", _CONTENT_TYPES[:1]):
                found += await _faults(
                    http,
                    method,
                    _filled(path),
                    operation,
                    f"{what} as {kind}",
                    content=body,
                    headers={"content-type": kind},
                )
    assert found == []


async def test_whatever_stands_in_an_address_or_a_header_gets_an_answer_that_is_documented(
    http: httpx.AsyncClient,
) -> None:
    found: list[str] = []
    for method, path, operation in _operations():
        for parameter in operation.get("parameters", ()):
            place, name = parameter["in"], parameter["name"]
            for what, value in _VALUES.items():
                told = f"{what} as {name}"
                if place == "path":
                    found += await _faults(http, method, _filled(path, name, value), operation, told)
                elif place == "query":
                    found += await _faults(http, method, f"{_filled(path)}?{name}={value}", operation, told)
                elif not path.endswith("/stream/collaborate") and "%" not in value:
                    found += await _faults(
                        http, method, _filled(path), operation, told, headers={name: value}
                    )
    assert found == []


async def test_a_method_that_an_address_does_not_take_is_told_those_that_it_takes(
    http: httpx.AsyncClient,
) -> None:
    documented: dict[str, set[str]] = {}
    for method, path, _ in _operations():
        documented.setdefault(path, set()).add(method)
    for path, methods in documented.items():
        answer = await http.request("TRACE", _filled(path))
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), path
        # A fixed word may stand where another address has a name: it takes that one's methods too.
        assert methods <= {*answer.headers["allow"].split(", ")}, path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/router/trainings", {"until": 5.9e-08}),
        ("POST", "/v1/router/trainings", {"until": "5"}),
        ("POST", "/v1/router/trainings", {"seed": True}),
        ("POST", "/v1/router/trainings", {"seed": "1"}),
        ("POST", "/v1/streams/archive", {"older_than_days": True, "dry_run": True}),
        ("POST", "/v1/streams/archive", {"older_than_days": 1, "dry_run": "yes"}),
        ("POST", "/v1/prompts/p/promote", {"version": True}),
        ("PUT", "/v1/prices/openai/x", {"input_usd": True, "output_usd": 1}),
        ("PUT", "/v1/prices/openai/x", {"input_usd": "1e3", "output_usd": 1}),
        ("PUT", "/v1/prices/openai/x", {"input_usd": 1e-45, "output_usd": 1}),
        ("POST", "/v1/router/predict", {"task": 5}),
        ("PUT", "/v1/providers/p", {"kind": "ollama", "tokens_per_minute": 2_204_452_605}),
    ],
)
async def test_a_value_of_another_type_or_beyond_what_can_be_kept_is_refused(
    http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")


@pytest.mark.parametrize("moment", ["0.5", "5", "1700000000", "now"])
async def test_a_number_in_an_address_is_no_date(http: httpx.AsyncClient, moment: str) -> None:
    answer = await http.get("/v1/spending", params={"since": moment})
    assert (answer.status_code, answer.json()["problems"][0]["pointer"]) == (422, "/query/since")


async def test_a_whole_number_may_be_written_with_a_point_and_dollars_as_they_were_summed(
    http: httpx.AsyncClient,
) -> None:
    body = {"scope": "tenant", "period": "day", "usd": 0.1 + 0.2, "tokens": 1e3}
    answer = await http.put("/v1/limits", json=body)
    assert (answer.status_code, answer.json()["usd"], answer.json()["tokens"]) == (200, 0.3, 1_000)


@given(st.from_regex(cursors.MOMENT_AND_ID, fullmatch=True))
def test_every_cursor_by_time_that_the_document_allows_is_read(cursor: str) -> None:
    assert cursors.encode_moment(*cursors.moment_and_id(cursor)).lstrip("0") == cursor.lstrip("0")


@given(st.from_regex(cursors.TWO_NUMBERS, fullmatch=True))
def test_every_cursor_by_number_that_the_document_allows_is_read(cursor: str) -> None:
    assert max(cursors.two_numbers(cursor)) < 2**63


@given(st.from_regex(cursors.USD_AND_NAME, fullmatch=True))
def test_every_cursor_by_dollars_that_the_document_allows_is_read(cursor: str) -> None:
    assert cursors.encode(*cursors.usd_and_name(cursor)).lstrip("0") == cursor.lstrip("0")


@given(st.from_regex(cursors.LIMIT_KEY, fullmatch=True))
def test_every_cursor_of_limits_that_the_document_allows_is_read(cursor: str) -> None:
    scope, subject, period = cursors.limit_key(cursor)
    assert cursors.encode(scope, period, subject) == cursor


@given(st.from_regex(POSITION_OF_RUN, fullmatch=True))
def test_every_place_in_a_stream_that_the_document_allows_is_read(text: str) -> None:
    cursor = parse(text)
    assert cursor.run is not None
    if cursor.place or cursor.joining is not None:
        place = parse_place(cursor.place)
        assert max(place.xid, place.seq, *place.beyond, 0) < 2**63
        assert max([*place.open.values(), 0]) < 2**31


async def test_schemathesis_finds_no_answer_that_the_document_does_not_promise() -> None:
    found = await contract.measure(contract.SHORT)
    assert (found.faults, found.server_errors, found.undocumented) == ({}, 0, 0)
    assert found.operations == {f"{method} {path}" for method, path, _ in _operations()}
