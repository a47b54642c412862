"""The codec server of Temporal's own pages: for them alone, and with a key only for who is signed in."""

import base64
import json
import os
from typing import Any, Final

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from schema.settings import Settings
from tests.support.api_client import door
from tests.support.requests import KEY, asking
from workflows.codec import data_converter

UI: Final = "http://127.0.0.1:8233"
PAYLOAD_KEY: Final = base64.urlsafe_b64encode(os.urandom(32)).decode()
FROM_UI: Final = {
    "origin": UI,
    "sec-fetch-site": "same-site",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "content-type": "application/json",
}
CORS: Final = {"access-control-allow-origin": UI, "access-control-allow-credentials": "true"}


def given(settings: Settings | None = None, **more: Any) -> Settings:
    found = settings or Settings()
    return found.model_copy(update={"temporal_ui_url": UI, "payload_keys": PAYLOAD_KEY, **more})


async def sealed(value: Any, settings: Settings) -> str:
    payloads = await data_converter(settings).encode([value])
    return json_format.MessageToJson(Payloads(payloads=payloads), indent=None)


def cors(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in CORS if name in answer.headers}


async def test_temporals_pages_read_what_is_sealed() -> None:
    settings = given()
    body = await sealed({"a": 1}, given(api_key=KEY))
    async with asking(settings) as http:
        asked = await http.request("OPTIONS", "/console/codec/decode", headers=FROM_UI)
        assert (asked.status_code, cors(asked)) == (204, CORS)
        answer = await http.post("/console/codec/decode", content=body, headers=FROM_UI)
        assert (answer.status_code, cors(answer)) == (200, CORS)
        [payload] = json_format.Parse(answer.content, Payloads()).payloads
        assert json.loads(payload.data) == {"a": 1}
        plain = Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=b"1")])
        text = json_format.MessageToJson(plain)
        again = await http.post("/console/codec/decode", content=text, headers=FROM_UI)
        assert json_format.Parse(again.content, Payloads()) == plain


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.test"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"origin": UI, "host": "evil.test:8700"},
    ],
)
async def test_no_other_page_reads_it(headers: dict[str, str]) -> None:
    async with asking(given()) as http:
        answer = await http.post("/console/codec/decode", content="{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
        assert "access-control-allow-origin" not in answer.headers


async def test_with_a_key_only_those_who_are_signed_in_read_it(settings: Settings) -> None:
    settings = given(settings, api_key=KEY)
    body = await sealed({"a": 1}, settings)
    async with door(settings) as http:
        answer = await http.post("/console/codec/decode", content=body, headers=FROM_UI)
        assert (answer.status_code, cors(answer)) == (401, CORS)
        own = {"origin": "http://127.0.0.1"}
        signed_in = await http.post("/console/login", data={"key": KEY}, headers=own)
        cookie = {"cookie": signed_in.headers["set-cookie"].partition(";")[0]}
        answer = await http.post("/console/codec/decode", content=body, headers=FROM_UI | cookie)
        [payload] = json_format.Parse(answer.content, Payloads()).payloads
        assert json.loads(payload.data) == {"a": 1}
        again = await http.post("/console/codec/encode", content=answer.content, headers=FROM_UI | cookie)
        [payload] = json_format.Parse(again.content, Payloads()).payloads
        assert payload.metadata["encoding"] == b"binary/encrypted"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"[1]", 400),
        (b'{"payloads": [{"metadata": 5}]}', 400),
        (b"[" * 100_000, 400),
        (b'{"payloads": [{"metadata": {"encoding": "YmluYXJ5L2VuY3J5cHRlZA=="}, "data": ""}]}', 400),
        (b"x" * (4 * 1024 * 1024 + 1), 413),
    ],
)
async def test_what_cannot_be_read_is_refused(body: bytes, status: int) -> None:
    async with asking(given()) as http:
        answer = await http.post("/console/codec/decode", content=body, headers=FROM_UI)
        assert (answer.status_code, cors(answer)) == (status, CORS)
