"""What hostile cases are, and how each is played against a running platform."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bench.hostile_uploads import Upload
from schema.temporal.queues import QUEUE_COLLABORATIONS

_RUN_SECONDS: Final = 30.0


@dataclass(frozen=True)
class HttpCase:
    """A request, and the answer that must come of it."""

    name: str
    method: str
    path: str
    status: int
    code: str
    """Of the answer, or of one of its problems."""
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TemporalCase:
    """A start past the API, and the code that the run must fail with."""

    name: str
    type: str
    id: str
    code: str


@dataclass(frozen=True)
class RunCase:
    """A definition to store and run. It is refused at one of the doors, or the run ends."""

    name: str
    document: dict[str, Any]
    input: Any
    codes: tuple[str, ...] | None = None
    """What the run, or the door that refuses it, may tell; None where any end will do."""


Case = HttpCase | TemporalCase | RunCase | Upload


async def play(case: Case, http: httpx.AsyncClient, client: Client) -> str:
    """Return what came of a case that must not: the status and the text; empty where all is well."""
    match case:
        case TemporalCase():
            return await _play_start(case, client)
        case RunCase():
            return await _play_run(case, http)
        case Upload():
            media_type = "application/yaml" if case.is_yaml else "application/json"
            answer = await http.post(
                "/v1/definitions", content=case.data, headers={"content-type": media_type}
            )
            return "" if 400 <= answer.status_code < 500 else _told(answer)
        case HttpCase():
            answer = await http.request(
                case.method, case.path, json=case.body, params=case.query, headers=case.headers
            )
            fits = answer.status_code == case.status and case.code in _codes(answer)
            return "" if fits else _told(answer)


def _codes(answer: httpx.Response) -> set[str]:
    if "json" not in answer.headers.get("content-type", ""):
        return {""}
    document = answer.json()
    problems = document.get("problems") or () if isinstance(document, dict) else ()
    return {str(document.get("code", "")), *(one["code"] for one in problems)}


def _told(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:200]}"


async def _play_start(case: TemporalCase, client: Client) -> str:
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            output = await client.execute_workflow(case.type, {}, id=case.id, task_queue=QUEUE_COLLABORATIONS)
    except WorkflowFailureError as error:
        code = error.cause.type if isinstance(error.cause, ApplicationError) else str(error.cause)
        return "" if code == case.code else f"it failed with {code}"
    return f"it came to {str(output)[:100]}"


async def _play_run(case: RunCase, http: httpx.AsyncClient) -> str:
    name = f"hostile-{uuid.uuid4().hex[:12]}"
    for path, body in (
        ("/v1/definitions", {**case.document, "name": name}),
        ("/v1/collaborations", {"definition": name, "input": case.input, "id": name}),
    ):
        answer = await http.post(path, json=body)
        if answer.is_error:
            expected = case.codes is None or not _codes(answer).isdisjoint(case.codes)
            return "" if answer.status_code < 500 and expected else _told(answer)
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            while (run := (await http.get(f"/v1/collaborations/{name}")).json())["status"] == "running":
                await asyncio.sleep(0.05)
    except TimeoutError:
        await http.post(f"/v1/collaborations/{name}/cancel")
        return f"the run did not end in {_RUN_SECONDS:g} s"
    code = (run["error"] or {}).get("code", "")
    return "" if case.codes is None or code in case.codes else f"it ended with {code or 'no error'}"
