"""The router through its doors: predictions with their doubt, checkpoints, trainings, what people tell."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.routing.route import RouteActivity
from api.app import create_app
from db.engine import transaction
from db.router import quarantines
from router.checkpoints import storage
from router.checkpoints.storage import Checkpoint
from router.data import features
from router.evaluate.checkpoint import read
from schema.settings import Settings
from tests.support.api_client import door, problem
from tests.support.api_server import served
from tests.support.event_log import Work, begin, end, work
from tests.support.learned import learned, put_to_work
from tests.support.providers import SIMULATOR
from tests.support.runs import rows
from tests.support.stack import Stack

GPT, DEEPSEEK = "openai/gpt-4", "deepseek/deepseek-chat"
STEP: dict[str, Any] = {
    "task": "write a Python sort algorithm",
    "role": "coder",
    "candidates": [GPT, DEEPSEEK],
}


EARLY = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def gpt_is_better() -> Checkpoint:
    return learned(GPT, models=(GPT, DEEPSEEK), embedding=features.rows)


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with door(settings) as client:
        yield client


async def asked(http: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def command(port: int, *arguments: str, exit_code: int = 0) -> str:
    how = ["-m", "cli.main", "router", *arguments, "--url", f"http://127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(sys.executable, *how, stdout=PIPE, stderr=STDOUT)
    output = (await process.communicate())[0].decode()
    assert process.returncode == exit_code, output
    return output


# -- predictions ----------------------------------------------------------------------------------------


async def test_without_a_checkpoint_rules_answer_and_say_so(http: httpx.AsyncClient) -> None:
    found = await asked(http, "/predict", **STEP)
    assert (found["by"], found["policy"], found["model"]) == ("rules", "rules-v1", DEEPSEEK)
    assert (found["fallback"], found["confidence"], found["checkpoint"]) == (False, None, None)
    assert found["notes"] == ["rules decide: no checkpoint serves"]
    assert {one["model"]: one["chance"] for one in found["candidates"]} == {GPT: 0.02, DEEPSEEK: 0.98}
    assert found["candidates"][0]["success"] is None
    info = (await http.get("/model-info")).json()
    assert (info["by"], info["checkpoint"], info["loads"]) == ("rules", None, 0)
    status = (await http.get("/v1/router")).json()
    assert (status["by"], status["serving"], status["fresh_seconds"]) == ("rules", None, None)


async def test_a_prediction_comes_with_its_doubt_and_the_checkpoint_is_loaded_once(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    before = (await http.get("/v1/router/model-info")).json()
    assert (before["checkpoint"]["number"], before["loaded"], before["loads"]) == (1, False, 0)
    found = await asked(http, "/v1/router/predict", **STEP)
    assert (found["model"], found["by"], found["policy"]) == (GPT, "checkpoint", "checkpoint-1")
    assert found["category"] == "coder/algorithms"
    best = found["candidates"][0]
    assert (best["model"], best["quarantined"]) == (GPT, False)
    assert 0 < best["doubt"] < best["success"] < 1
    assert found["confidence"] == pytest.approx(best["success"] - best["doubt"], abs=1e-3)
    for name in ("seconds", "output_tokens", "usd"):
        assert 0 < best[name]["low"] < best[name]["expected"] < best[name]["high"]
    assert best["output_tokens"]["high"] <= found["budget_tokens"] + 1
    assert found["votes"] == {"rules": DEEPSEEK, "memory": GPT, "neural": None}
    assert sum(one["chance"] for one in found["candidates"]) == pytest.approx(1)
    assert await asked(http, "/predict", **STEP) == found
    info = (await http.get("/v1/router/model-info")).json()
    assert (info["loaded"], info["loads"], info["models"]) == (True, 1, [GPT, DEEPSEEK])
    assert (info["cached_texts"], info["incumbent"]) == (2, GPT)  # one warmed up the encoder
    assert info["cache_hits"] >= 1
    # Nothing of it is recorded.
    assert await rows(engine, "SELECT count(*) FROM routing_decisions") == [(0,)]


async def test_many_steps_are_predicted_at_once_and_as_alone(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    steps = [STEP | {"task": f"sort list {number}"} for number in range(40)]
    steps[7] = {"task": "write a poem", "agent": "poet"}
    together = (await asked(http, "/batch-predict", steps=steps))["predictions"]
    assert len(together) == 40
    for at in (0, 7, 39):
        alone = await asked(http, "/predict", **steps[at])
        assert together[at]["model"] == alone["model"]
        assert together[at]["confidence"] == pytest.approx(alone["confidence"], abs=1e-3)
    unknown = [one for one in together[7]["candidates"] if one["usd"] is None]
    assert len(together[7]["candidates"]) > 2
    assert together[7]["category"] == "poet/general"
    assert all(one["model"] in " ".join(together[7]["notes"]) for one in unknown)


async def test_what_is_wrong_with_a_question_is_told(http: httpx.AsyncClient) -> None:
    missing = await http.post("/predict", json={"role": "coder"})
    assert problem(missing, 422, "request_invalid")["problems"][0]["pointer"] == "/task"
    many = await http.post("/batch-predict", json={"steps": [STEP] * 257})
    assert problem(many, 422, "request_invalid")["problems"][0]["pointer"] == "/steps"
    wrong = await http.post("/v1/router/predict", json=STEP | {"candidates": ["gpt"]})
    assert problem(wrong, 422, "request_invalid")["problems"][0]["pointer"] == "/candidates/0"
    problem(
        await http.post("/predict", content="x", headers={"content-type": "text/csv"}),
        415,
        "media_type_unsupported",
    )


async def test_a_broken_checkpoint_is_told_of_everywhere_and_rules_answer(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE checkpoints SET content = '\\x00'"))
    found = await asked(http, "/predict", **STEP)
    assert (found["by"], found["fallback"], found["model"]) == ("rules", True, DEEPSEEK)
    assert "checkpoint 1" in found["notes"][0]
    assert "checkpoint 1" in (await http.get("/model-info")).json()["broken"]
    health = (await http.get("/health")).json()
    assert not health["checks"]["router"]["ok"]
    assert not health["checks"]["router"]["required"]


async def test_a_challenger_is_told_of_and_does_not_answer(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better, "share")
    found = await asked(http, "/predict", **STEP)
    assert (found["by"], found["model"]) == ("rules", DEEPSEEK)
    assert found["candidates"][0]["success"] is not None
    assert found["notes"][-1] == ("rules decide: no checkpoint serves; what is expected is by checkpoint 1")


# -- who serves -----------------------------------------------------------------------------------------


async def test_checkpoints_are_promoted_and_rolled_back(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    await put_to_work(engine, gpt_is_better, "shadow")
    async with transaction(engine) as connection:
        await quarantines.add(connection, "default", DEEPSEEK, "fails", "test", simulated=True)
    status = (await http.get("/v1/router")).json()
    assert (status["policy"], status["challenger"]["number"]) == ("checkpoint-1", 2)
    assert status["fresh_seconds"] >= 0
    assert [one["model"] for one in status["quarantines"]] == [DEEPSEEK]
    assert {one["status"] for one in status["trainings"]} == {"registered"}
    for state in ("share", "all"):
        found = await asked(http, "/v1/router/promote", number=2)
        assert found["state"] == state
    page = (await http.get("/v1/router/checkpoints", params={"limit": 1})).json()
    assert ([one["number"] for one in page["items"]], page["next"]) == ([2], 2)
    rest = (await http.get("/v1/router/checkpoints", params={"before": 2})).json()
    assert ([one["state"] for one in rest["items"]], rest["next"]) == (["retired"], None)
    back = await asked(http, "/v1/router/rollback", reason="worse")
    assert back["policy"] == "checkpoint-1"
    assert (await http.get("/v1/router/checkpoints/2")).json()["state_reason"] == "worse"
    assert (await asked(http, "/v1/router/rollback"))["policy"] == "rules-v1"
    kept = await http.get("/v1/router/checkpoints/2/content")
    assert storage.unpack(kept.content, kept.headers["ETag"].strip('"')).models == gpt_is_better.models
    problem(await http.get("/v1/router/checkpoints/9/content"), 404, "checkpoint_unknown")
    problem(await http.post("/v1/router/rollback"), 409, "checkpoint_state")
    problem(await http.post("/v1/router/promote", json={"number": 9}), 404, "checkpoint_unknown")
    problem(await http.get(f"/v1/router/trainings/{uuid4()}"), 404, "training_unknown")


async def test_one_training_goes_on_at_a_time_and_tells_how_it_ended(platform: Stack) -> None:
    async with door(platform.settings) as http:
        # Other tests may have run something here by now, but not by then.
        wanted = {"seed": 3, "until": EARLY}
        both = await asyncio.gather(*(http.post("/v1/router/trainings", json=wanted) for _ in range(2)))
        [refused, started] = sorted(both, key=lambda answer: -answer.status_code)
        problem(refused, 409, "training_running")
        assert started.status_code == 202
        assert started.json()["workflow_id"] == "facilitair.learn.default"
        address = f"/v1/router/trainings/{started.json()['id']}"
        for _ in range(600):
            answer = await http.get(address)
            if answer.status_code == 200 and answer.json()["status"] != "running":
                break
            await asyncio.sleep(0.1)
        assert (answer.json()["status"], answer.json()["seed"]) == ("refused", 3)
        assert answer.json()["reason"]
        listed = (await http.get("/v1/router/trainings")).json()["items"]
        assert started.json()["id"] in {one["id"] for one in listed}
    async with served(platform.settings) as found:
        shown = await command(found.port, "train", "--watch", "--until", EARLY, exit_code=1)
        assert shown.startswith("refused: ")


async def test_people_say_how_good_an_answer_was(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    request = await begin(engine, "Write a function")
    await work(engine, request, Work("code", "coder", GPT))
    await end(engine, request)
    path = f"/v1/collaborations/wf-{request.collaboration}/steps/code/outcome"
    told = await asked(http, path, ok=0.25, note="it does not compile")
    assert (told["ok"], told["note"]) == (0.25, "it does not compile")
    await asked(http, path, ok=1)
    assert await rows(engine, "SELECT ok, actor FROM outcomes") == [(1.0, "local")]
    problem(await http.post(path, json={"ok": 2}), 422, "request_invalid")
    unknown = await http.post("/v1/collaborations/nobody/steps/code/outcome", json={"ok": 1})
    problem(unknown, 404, "collaboration_unknown")
    other = await http.post(path.replace("/code/", "/other/"), json={"ok": 1})
    problem(other, 404, "step_not_begun")


# -- watched --------------------------------------------------------------------------------------------


async def test_prometheus_reads_what_was_decided(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await http.get("/metrics")
    for _ in range(3):
        request = await begin(engine, "Write a function")
        await ActivityEnvironment().run(RouteActivity(engine, SIMULATOR).route, request)

    async def figures() -> dict[str, float]:
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    for _ in range(100):
        found = await figures()
        if found.get('facilitair_router_decisions_total{policy="rules-v1"}') == 3:
            break
        await asyncio.sleep(0.1)
    assert found["facilitair_router_fallbacks_total"] == 0
    assert found['facilitair_router_decision_seconds_bucket{le="+Inf"}'] == 3
    assert found["facilitair_router_decision_seconds_count"] == 3
    assert found["facilitair_router_confidence_count"] == 0
    assert found["facilitair_router_quarantined"] == 0
    assert await figures() == found
    openmetrics = (await http.get("/v1/router/metrics")).text
    assert openmetrics.count("# TYPE") == openmetrics.count("# HELP")


async def test_alive_and_ready_are_two_questions(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health/live")).json() == {"live": True}
    ready = await http.get("/health")
    assert ready.json()["checks"]["router"]["detail"] == "rules decide"


async def test_the_console_has_a_page(
    http: httpx.AsyncClient, engine: AsyncEngine, gpt_is_better: Checkpoint
) -> None:
    await put_to_work(engine, gpt_is_better)
    page = await http.get("/console/router", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "Roll back checkpoint 1?" in page.text


async def test_the_commands_say_what_the_doors_do(
    settings: Settings, engine: AsyncEngine, gpt_is_better: Checkpoint, tmp_path: Path
) -> None:
    request = await begin(engine, "Write a function")
    await work(engine, request, Work("code", "coder", GPT))
    await end(engine, request)
    async with served(settings) as found:

        async def said(*arguments: str, exit_code: int = 0) -> str:
            return await command(found.port, *arguments, exit_code=exit_code)

        async def told(*arguments: str) -> dict[str, Any]:
            return dict(json.loads(await said(*arguments, "--json")))

        assert "rules-v1 decides" in await said("status")
        await put_to_work(engine, gpt_is_better, "share")
        assert "checkpoint 1 serves: all" in await said("promote", "1")
        assert "checkpoint-1 decides" in await said("status")
        assert "by local" in await said("checkpoints")
        assert "registered" in await said("trainings")
        assert "bytes in" in await said("export", "1", str(tmp_path / "one"))
        assert read(tmp_path / "one").models == gpt_is_better.models
        assert "cannot be written" in await said("export", "1", str(tmp_path), exit_code=2)
        step = ["predict", STEP["task"], "--role", "coder", "--among", GPT, "--among", DEEPSEEK]
        shown = await said(*step)
        assert f"{GPT}  by checkpoint-1 for coder/algorithms  confidence 0." in shown
        assert (await told(*step))["model"] == GPT
        assert ": 0.5" in await said("outcome", f"wf-{request.collaboration}", "code", "0.5")
        assert "step_not_begun" in await said(
            "outcome", f"wf-{request.collaboration}", "no", "1", exit_code=2
        )
        assert (await told("rollback", "--reason", "worse"))["by"] == "rules"
        assert "checkpoint_state" in await said("rollback", exit_code=2)
        async with transaction(engine) as connection:
            await quarantines.add(connection, "default", GPT, "it fails", simulated=True)
        assert GPT in await said("status", "--simulated")
        assert (await told("lift", GPT, "--simulated"))["quarantines"] == []
        assert "quarantine_unknown" in await said("lift", GPT, "--simulated", exit_code=2)


def test_the_addresses_are_described() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    for path in ("predict", "batch-predict", "model-info", "metrics"):
        assert f"/v1/router/{path}" in paths
    body = paths["/v1/router/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"task"}
