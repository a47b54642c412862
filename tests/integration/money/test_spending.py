"""Money over HTTP and on the command line: what was spent, what may be spent, what models cost."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.activity import AgentActivity
from db.engine import transaction
from db.money.limits import EACH
from schema.settings import Settings
from tests.integration.money.test_limits import CHEAP, STRONG, asking, close_call, limit, open_call
from tests.integration.money.test_limits import put as set_limits
from tests.support.api_client import door, problem
from tests.support.api_server import served
from tests.support.runs import begin, rows


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API, whose operator allows one host of tenants' providers."""
    async with door(settings.model_copy(update={"provider_hosts": "models.acme.example"})) as client:
        client.base_url = httpx.URL("http://127.0.0.1/v1")
        yield client


async def got(http: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def put(http: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await http.put(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def places(answer: httpx.Response) -> list[str]:
    return [one["pointer"] for one in problem(answer, 422, "request_invalid").get("problems", [])]


# -- what was spent -----------------------------------------------------------------------------------


async def test_a_report_tells_billed_simulated_and_open_calls_apart(
    http: httpx.AsyncClient, engine: AsyncEngine, agents: AgentActivity
) -> None:
    request = await begin(engine, asking("review"), user="ada")
    await agents.agent(request)
    await open_call(engine, request, "0.5")
    billed = await open_call(engine, request, "0.5")
    await close_call(engine, billed, "0.25")
    async with transaction(engine) as connection:
        update = "UPDATE model_calls SET simulated = false WHERE id = :id"
        await connection.execute(text(update), {"id": billed})
    [[made_up]] = await rows(engine, "SELECT sum(usd) FROM model_calls WHERE simulated")

    found = await got(http, "/spending", by="agent")
    [one] = found["items"]
    assert (one.pop("name"), found["by"], found["next"]) == ("a", "agent", None)
    assert one == found["total"]
    figures = {key: one[key] for key in ("calls", "open_calls", "billed_usd", "simulated_usd", "simulated")}
    assert figures == {
        "calls": 3,
        "open_calls": 1,
        "billed_usd": 0.25,
        "simulated_usd": float(made_up),
        "simulated": True,
    }
    assert Decimal(str(one["usd"])) == made_up + Decimal("0.25")
    since, until = (datetime.fromisoformat(found[end]) for end in ("since", "until"))
    assert until - since == timedelta(days=30) and until <= datetime.now(UTC)
    for by, name in (("user", "ada"), ("definition", "review"), ("model", STRONG), ("tenant", "default")):
        assert [one["name"] for one in (await got(http, "/spending", by=by))["items"]] == [name]
    assert (await got(http, "/spending", until="2026-01-01"))["total"]["calls"] == 0


async def test_a_report_comes_in_pages(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for name, usd in (("a|b", "0.3"), ("dear", "0.4"), ("b", "0.3"), ("free", "0")):
        request = await begin(engine, asking(), user=name)
        await close_call(engine, await open_call(engine, request, "1"), usd)
    names, query = [], {"by": "user", "limit": 1}
    while True:
        page = await got(http, "/spending", **query)
        names += [one["name"] for one in page["items"]]
        assert page["total"]["calls"] == 4
        if not page["next"]:
            break
        query |= {"after": page["next"], "until": page["until"]}
    assert names == ["dear", "a|b", "b", "free"]
    days = await got(http, "/spending", by="day")
    assert [one["name"] for one in days["items"]] == [datetime.now(UTC).strftime("%Y-%m-%d")]


async def test_a_time_that_cannot_be_meant_is_refused(http: httpx.AsyncClient) -> None:
    backwards = await http.get("/spending", params={"since": "2026-02-01", "until": "2026-01-01"})
    assert await places(backwards) == ["/query/since"]
    assert await places(await http.get("/spending", params={"since": "last week"})) == ["/query/since"]
    assert await places(await http.get("/spending", params={"by": "mood"})) == ["/query/by"]
    for path in ("/spending", "/limits"):
        for cursor in ("x", "eHx5", "MXwA"):
            problem(await http.get(path, params={"after": cursor}), 422, "cursor_wrong")


# -- what may be spent --------------------------------------------------------------------------------


async def test_limits_are_set_listed_and_removed(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    request = await begin(engine, asking("review"), user="ada")
    await close_call(engine, await open_call(engine, request, "0.5"), "0.2")
    stored = await put(http, "/limits", scope="tenant", period="day", usd=25)
    assert stored.pop("set_at")
    assert stored == {
        "scope": "tenant",
        "subject": "",
        "period": "day",
        "usd": 25.0,
        "tokens": None,
        "set_by": "local",
        "counters": [
            {"subject": "", "spent_usd": 0.2, "reserved_usd": 0.0, "spent_tokens": 5, "reserved_tokens": 0}
        ],
        "warnings": [],
    }
    await put(http, "/limits", scope="user", subject="*", period="month", usd="7.5", tokens=1_000)
    known = await put(http, "/limits", scope="definition", subject="review", period="total", tokens=0)
    typo = await put(http, "/limits", scope="definition", subject="reveiw", period="total", tokens=0)
    assert known["warnings"] == [] and "'reveiw'" in typo["warnings"][0]

    first = await got(http, "/limits", limit=3)
    rest = await got(http, "/limits", limit=3, after=first["next"])
    assert rest["next"] is None
    facts = [
        (one["scope"], one["subject"], one["period"], one["usd"], one["tokens"], len(one["counters"]))
        for one in [*first["items"], *rest["items"]]
    ]
    assert facts == [
        ("definition", "reveiw", "total", None, 0, 0),
        ("definition", "review", "total", None, 0, 1),
        ("tenant", "", "day", 25.0, None, 1),
        ("user", "*", "month", 7.5, 1_000, 1),
    ]
    assert rest["items"][0]["counters"][0]["subject"] == "ada"

    key = {"scope": "user", "subject": "*", "period": "month"}
    assert (await http.delete("/limits", params=key)).status_code == 204
    problem(await http.delete("/limits", params=key), 404, "limit_unknown")
    assert await rows(engine, "SELECT action, subject, actor FROM audit_log ORDER BY id DESC LIMIT 1") == [
        ("limit.remove", "user/*/month", "local")
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "tenant", "period": "day"},
        {"scope": "tenant", "subject": "ada", "period": "day", "usd": 1},
        {"scope": "user", "period": "day", "usd": 1},
        {"scope": "user", "subject": "a\n", "period": "day", "usd": 1},
        {"scope": "run", "subject": "x", "period": "day", "usd": 1},
        {"scope": "tenant", "period": "week", "usd": 1},
        {"scope": "tenant", "period": "day", "usd": -1},
        {"scope": "tenant", "period": "day", "usd": 0.0000001},
        {"scope": "tenant", "period": "day", "usd": "Infinity"},
        {"scope": "tenant", "period": "day", "usd": 1e12},
        {"scope": "tenant", "period": "day", "usd": True},
        {"scope": "tenant", "period": "day", "tokens": 1.5},
        {"scope": "tenant", "period": "day", "usd": 1, "per": "day"},
    ],
)
async def test_a_limit_that_cannot_be_meant_is_refused(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert await places(await http.put("/limits", json=body))
    assert (await got(http, "/limits"))["items"] == []


# -- what models cost ---------------------------------------------------------------------------------


async def test_a_price_says_where_it_comes_from(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ours = await got(http, f"/prices/{STRONG}")
    assert (ours["input_usd"], ours["output_usd"], ours["versions"]) == (30.0, 60.0, [])
    assert ours["source"].startswith("facilitair:")
    litellms = await got(http, "/prices/openai/gpt-3.5-turbo")
    assert litellms["source"].startswith("litellm:") and litellms["input_usd"] == 0.5
    nobodys = await got(http, "/prices/acme/llama-70b")
    assert (nobodys["source"], nobodys["input_usd"]) == (None, None)

    await put(http, "/prices/acme/llama-70b", input_usd=1, output_usd=2)
    second = await put(http, "/prices/acme/llama-70b", input_usd=0.1, output_usd=2, cached_input_usd="0.05")
    assert (second["version"], second["set_by"]) == (2, "local")
    await put(http, f"/prices/{STRONG}", input_usd=0, output_usd=0)
    mine = await got(http, "/prices/acme/llama-70b")
    assert (mine["source"], mine["cached_input_usd"]) == ("tenant:default@2", 0.05)
    assert [(one["version"], one["input_usd"]) for one in mine["versions"]] == [(2, 0.1), (1, 1.0)]
    first = await got(http, "/prices", limit=1)
    rest = await got(http, "/prices", after=first["next"])
    assert [(one["model"], one["version"]) for one in [*first["items"], *rest["items"]]] == [
        ("acme/llama-70b", 2),
        (STRONG, 1),
    ]
    assert {one["model"]: one for one in (await got(http, "/catalogue"))["models"]}[STRONG]["input_usd"] == 0


async def test_a_price_that_cannot_be_meant_is_refused(http: httpx.AsyncClient) -> None:
    for body in (
        {"input_usd": 1},
        {"input_usd": 0.00000015, "output_usd": 1},
        {"input_usd": "cheap", "output_usd": 1},
        {"input_usd": 1, "output_usd": 1, "currency": "EUR"},
    ):
        assert await places(await http.put("/prices/acme/x", json=body))
    assert await places(await http.put("/prices/no-provider", json={"input_usd": 1, "output_usd": 1}))
    assert await places(await http.get("/prices/no-provider"))


# -- before a run -------------------------------------------------------------------------------------


async def test_an_estimate_counts_with_the_tenants_prices_and_its_input(http: httpx.AsyncClient) -> None:
    definition = asking("read", prompt="${input.text}")
    definition["agents"]["a"]["model"] = "acme/llama-70b"
    definition["input"] = {"type": "object", "properties": {"text": {"type": "string"}}}
    await put(http, "/providers/acme", kind="openai_compatible", base_url="https://models.acme.example/v1")
    body = {"definition": definition}
    unknown = (await http.post("/definitions/estimate", json=body)).json()
    assert unknown["usd"] is None and "price_missing" in unknown["warnings"][0]
    await put(http, "/prices/acme/llama-70b", input_usd=1, output_usd=10)

    guessed = (await http.post("/definitions/estimate", json=body)).json()
    assert (guessed["model_calls"], guessed["warnings"]) == (1, [])
    [price] = guessed["prices"]
    assert (price["model"], price["source"]) == ("acme/llama-70b", "tenant:default@1")
    known = (await http.post("/definitions/estimate", json=body | {"input": {"text": "x" * 30}})).json()
    large = (await http.post("/definitions/estimate", json=body | {"input": {"text": "x" * 60_000}})).json()
    # 11 tokens of input text and 4 of the template, or 20,005; 100 of output.
    assert known["usd"] == pytest.approx((11 + 4 + 100 * 10) / 1e6)
    assert large["usd"] == pytest.approx((20_001 + 4 + 100 * 10) / 1e6)
    assert known["usd"] < guessed["usd"] < large["usd"]
    wrong = await http.post("/definitions/estimate", json=body | {"input": {"text": 1}})
    assert problem(wrong, 422, "input_invalid")["problems"][0]["pointer"] == "/input/text"
    planned = (await http.post("/definitions/plan", json=body)).json()
    assert planned["estimate"]["usd"] == guessed["usd"]


async def test_an_estimate_tells_which_limits_would_hold(
    http: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await set_limits(
        engine,
        limit("user", "local", "day", "0.001"),
        limit("user", EACH, "day", "9"),
        limit("definition", "one", "day", "9"),
        limit("definition", "other", "day", "9"),
        limit("tenant", "", "day", tokens=10**6),
    )
    found = (await http.post("/definitions/estimate", json={"definition": asking()})).json()
    assert sorted((one["scope"], one["subject"]) for one in found["limits"]) == [
        ("definition", "one"),
        ("tenant", ""),
        ("user", "local"),
    ]
    assert len(found["warnings"]) == 1 and "$0.001000 are left" in found["warnings"][0]
    problem(await http.post("/definitions/estimate", json={"name": "nope"}), 404, "definition_unknown")


# -- on the command line ------------------------------------------------------------------------------


class CommandOutput(NamedTuple):
    stdout: str
    stderr: str


async def test_the_commands_speak_to_the_api(
    settings: Settings, engine: AsyncEngine, agents: AgentActivity, tmp_path: Path
) -> None:
    await agents.agent(await begin(engine, asking("review"), user="ada"))
    file = tmp_path / "review.json"
    file.write_text(json.dumps(asking("review", prompt="${input.text}")))
    async with served(settings) as api:

        async def run(*arguments: str, exit_code: int = 0) -> CommandOutput:
            url = f"http://127.0.0.1:{api.port}"
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli.main", *arguments, "--url", url, stdout=PIPE, stderr=PIPE
            )
            stdout, stderr = await process.communicate()
            assert process.returncode == exit_code, stderr
            return CommandOutput(stdout.decode(), stderr.decode())

        async def words(*arguments: str) -> list[str]:
            said = await run(*arguments)
            return [" ".join(line.split()) for line in said.stdout.splitlines()]

        assert (await words("limits"))[0] == "none yet"
        set_now = await words("limits", "set", "tenant", "--per", "day", "--usd", "25")
        assert set_now[0].startswith("the tenant $25.000000 per day, $0.")
        await run("limits", "set", "user", "--per", "month", "--tokens", "1000")
        listed = await words("limits")
        assert listed[1] == "the tenant day $25.000000" and listed[3] == "each user month 1,000 tokens"
        assert re.fullmatch(r"ada \d+ tokens 0 tokens \d+ tokens", listed[4])
        await run("limits", "remove", "user", "--per", "month")
        assert (
            "limit_unknown" in (await run("limits", "remove", "user", "--per", "month", exit_code=2)).stderr
        )
        assert "request_invalid" in (await run("limits", "set", "user", "--per", "day", exit_code=2)).stderr

        assert await words("prices") == ["none of your own yet"]
        await run("prices", "set", CHEAP, "--in", "0.15", "--out", "0.6")
        assert (await words("prices"))[1].startswith(f"{CHEAP} 1 $0.15 $0.6 local ")
        assert (await words("prices", "show", CHEAP))[1] == f"{CHEAP} $0.15 $0.6 tenant:default@1"
        missing = await run("prices", "show", "acme/x")
        assert "no price is known" in missing.stdout and "price_missing" in missing.stderr

        spent = await words("spending", "--by", "user", "--since", "7d")
        assert spent[0] == "user calls tokens in cached out billed simulated"
        assert spent[1].startswith("ada 1 ") and spent[2].startswith("in all 1 ")
        assert await words("spending", "--until", "1d") == ["no calls in this time"]
        as_json = json.loads((await run("spending", "--since", "2020-01-01", "--json")).stdout)
        assert as_json["total"]["calls"] == 1 and as_json["since"].startswith("2020-01-01T00:00:00")

        said = await words("estimate", str(file), "-i", "text=abc")
        assert said[0].startswith("review at most $0.006") and said[0].endswith(", 1 model calls")
        assert said[-1].startswith("the tenant $25.000000 per day")
