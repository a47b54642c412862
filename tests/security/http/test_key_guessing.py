"""Guessing the key gets slower with every guess, and its name in the audit log tells nothing of it."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections import Counter
from typing import Any, Final

import httpx
import psycopg
import pytest

from api.http.failed_keys import FORGET_AFTER_SECONDS, MAX_FREE_KEYS, FailedKeys
from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.cli import ROOT
from tests.support.requests import HERE, KEY, asking

KEYED: Final = Settings(FACILITAIR_API_KEY=KEY)


async def test_forty_wrong_keys_at_once_are_not_all_looked_at() -> None:
    async with asking(KEYED) as http:
        answers = await asyncio.gather(
            *(http.get("/v1/definitions", headers={"x-api-key": f"guess {n}"}) for n in range(40))
        )
        allowed = MAX_FREE_KEYS + 1
        assert Counter(one.status_code for one in answers) == {401: allowed, 429: 40 - allowed}
        refused = next(one for one in answers if one.status_code == 429)
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_many_wrong_keys", "1")
        # Not even the right one is told from a guess meanwhile, at no door.
        problem(await http.get("/v1/definitions", headers={"x-api-key": KEY}), 429, "too_many_wrong_keys")
        form = await http.post("/console/login", data={"key": KEY}, headers={"origin": HERE})
        assert (form.status_code, form.headers["retry-after"]) == (429, "1")
        assert "Too many wrong keys. Wait 1 s" in form.text


async def test_forty_wrong_logins_at_once_are_not_all_looked_at() -> None:
    async with asking(KEYED) as http:
        answers = await asyncio.gather(
            *(
                http.post("/console/login", data={"key": f"guess {n}"}, headers={"origin": HERE})
                for n in range(40)
            )
        )
    allowed = MAX_FREE_KEYS + 1
    assert Counter(one.status_code for one in answers) == {401: allowed, 429: 40 - allowed}


async def test_a_client_with_an_old_key_locks_nobody_out(settings: Settings) -> None:
    async with door(settings.model_copy(update={"api_key": KEY})) as http:
        for _ in range(20):
            old = await http.get("/v1/definitions", headers={"x-api-key": "the key of last year"})
            problem(old, 401, "api_key_wrong")
        assert (await http.get("/v1/definitions", headers={"x-api-key": KEY})).status_code == 200


def test_the_wait_doubles_up_to_a_minute_and_is_forgotten() -> None:
    now = 0.0
    failed = FailedKeys(clock=lambda: now)
    waits = []
    for n in range(14):
        failed.add("10.0.0.1", f"guess {n}")
        waits.append(failed.wait_seconds("10.0.0.1"))
        now += waits[-1]
    assert waits == [0.0] * 5 + [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert failed.wait_seconds("10.0.0.2") == 0.0
    now += FORGET_AFTER_SECONDS + 1
    failed.add("10.0.0.1", "a slip")
    assert failed.wait_seconds("10.0.0.1") == 0.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"FACILITAIR_API_KEY": "hunter2"}, "expected at least 16"),
        ({"FACILITAIR_HOST": "0.0.0.0"}, "FACILITAIR_API_KEY"),
        ({"FACILITAIR_PUBLIC_URL": "https://facilitair.example"}, "FACILITAIR_API_KEY"),
        ({"FACILITAIR_PUBLIC_URL": "facilitair.example"}, "expected scheme and host"),
        ({"FACILITAIR_PUBLIC_URL": "https://x.example/path", "FACILITAIR_API_KEY": KEY}, "expected scheme"),
        ({"FACILITAIR_API_KEY": KEY, "FACILITAIR_PAYLOAD_KEYS": ""}, "no FACILITAIR_PAYLOAD_KEYS"),
    ],
)
def test_it_does_not_start_where_anybody_could_get_in(given: dict[str, str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        env={**os.environ, "FACILITAIR_API_KEY": "", "FACILITAIR_PUBLIC_URL": "", **given},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "hunter2" not in done.stderr


async def test_the_audit_name_of_a_key_is_random_and_stays(settings: Settings) -> None:
    keyed = settings.model_copy(update={"api_key": KEY})
    names = [await _made_by(keyed, "first"), await _made_by(keyed, "second")]
    names.append(await _made_by(settings.model_copy(update={"api_key": "another key, as long"}), "third"))
    assert names[0] == names[1] != names[2]
    for key in (KEY, "another key, as long"):
        digests = [hashlib.new(name, key.encode()).hexdigest() for name in ("sha256", "sha1", "md5")]
        assert not any(name.removeprefix("key:") in digest for name in names for digest in digests)
    assert await _made_by(settings, "fourth") == "local"
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        stored = await (await connection.execute("SELECT id, salt, scrypt FROM api_keys")).fetchall()
    assert {f"key:{row[0]}" for row in stored} == set(names)
    assert KEY.encode() not in b"".join(part for row in stored for part in row[1:])


async def _made_by(settings: Settings, name: str) -> Any:
    """Who is told to have stored a definition, by each of two processes that start at once."""
    async with door(settings) as http, door(settings) as other:
        found = await asyncio.gather(
            *(_upload(one, settings, f"{name}-{n}") for n, one in enumerate((http, other)))
        )
    assert found[0] == found[1]
    return found[0]


async def _upload(http: httpx.AsyncClient, settings: Settings, name: str) -> Any:
    headers = {"x-api-key": settings.api_key} if settings.api_key else {}
    definition = {"name": name, "steps": {"a": {"kind": "transform", "value": 1}}}
    (await http.post("/v1/definitions", json=definition, headers=headers)).raise_for_status()
    versions = await http.get(f"/v1/definitions/{name}/versions", headers=headers)
    return versions.json()["items"][0]["created_by"]
