"""Under which name the API is reached is its operator's word."""

import pytest

from schema.errors import Refused
from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.requests import KEY

PUBLIC = "https://facilitair.example"


def _public(settings: Settings, url: str = PUBLIC) -> Settings:
    return settings.model_copy(update={"api_key": KEY, "public_url": url})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "facilitair.example"}, 200),
        ({"host": "FACILITAIR.example:443", "origin": PUBLIC}, 200),
        ({"host": "127.0.0.1:8700"}, 200),
        ({"host": "10.1.2.3:8700"}, 200),  # a load balancer's check; no page can have an address rebound
        ({"host": "127.0.0.1:8700", "origin": PUBLIC}, 200),  # a proxy that names itself to us
        ({"host": "evil.example"}, 403),
        ({"host": "facilitair.example.evil.example"}, 403),
        ({"host": "facilitair.example", "origin": "http://facilitair.example"}, 403),
        ({"host": "facilitair.example", "origin": f"{PUBLIC}:8443"}, 403),
        ({"host": "facilitair.example", "origin": "https://evil.example"}, 403),
    ],
)
async def test_only_the_public_name_and_addresses_are_answered(
    settings: Settings, headers: dict[str, str], status: int
) -> None:
    async with door(_public(settings)) as http:
        answer = await http.get("/v1/definitions", headers=headers | {"x-api-key": KEY})
        assert answer.status_code == status
        if status == 403:
            problem(answer, 403, "origin_refused")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("", "http://127.0.0.1/hooks/"),
        (PUBLIC, "https://facilitair.example/hooks/"),
        ("https://Facilitair.example:8443/", "https://facilitair.example:8443/hooks/"),
    ],
)
async def test_a_webhooks_address_is_the_public_one(settings: Settings, url: str, address: str) -> None:
    async with door(_public(settings, url)) as http:
        headers = {"x-api-key": KEY, "x-forwarded-host": "evil.example", "x-forwarded-proto": "ftp"}
        definition = {"name": "hooked", "steps": {"a": {"kind": "transform", "value": 1}}}
        (await http.post("/v1/definitions", json=definition, headers=headers)).raise_for_status()
        made = await http.post("/v1/webhooks", json={"name": "hooked"}, headers=headers)
        assert made.json()["url"].startswith(address)


@pytest.mark.parametrize(
    "url",
    [
        "x.example",
        "ftp://x.example",
        "https://",
        "https://a@x.example",
        "https://x.example/path",
        "https://x.example?q",
        "https://[::1",
        "https://x:port",
    ],
)
async def test_an_address_that_is_none_is_refused(settings: Settings, url: str) -> None:
    with pytest.raises(Refused, match="FACILITAIR_PUBLIC_URL"):
        async with door(_public(settings, url)):
            pass
