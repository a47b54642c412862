"""Strangers at every door of a running platform: `python -m bench.foreign [--cases 20000] [--json]`.

Inputs over HTTP, WebSockets, webhooks and Temporal, answers of providers, pages, results of users' own
activities and texts of `json.parse` are drawn by hypothesis. Whatever they are: no run ends with a fault of
the platform, all that is stored can be read, and nothing stays running behind the end of its run.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from sqlalchemy import TextClause, text
from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue
from temporalio.service import RPCError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.foreign.cases import Case, draw
from bench.foreign.stranger import QUEUE, Stranger, raw
from bench.loopback import serving
from schema.temporal.queues import QUEUE_COLLABORATIONS
from tests.support.stack import SERVERS, Stack, stack

AT_A_TIME: Final = 16
_ALLOWED: Final = ("FACILITAIR_PROVIDER_HOSTS", "FACILITAIR_HTTP_TOOL_ALLOW")
_LIMITS: Final = ("FACILITAIR_MAX_STARTS_PER_MINUTE", "FACILITAIR_MAX_WEBHOOK_CALLS_PER_MINUTE")
MODELS: Final = 20
"""Each of its own circuit: what fails for one stranger keeps none of the others from answering."""
HANGS_AFTER_SECONDS: Final = 120.0
SETTLES_SECONDS: Final = 10.0
_FAULTS: Final = text("SELECT count(*) FROM agent_executions WHERE error_code = 'internal_error'")
_RUNNING: Final = text("""
    SELECT temporal_workflow_id, 'run' FROM collaborations WHERE status = 'running'
    UNION ALL
    SELECT temporal_workflow_id, e.path
    FROM agent_executions e JOIN collaborations c ON c.id = e.collaboration_id
    WHERE e.status = 'running' AND c.status <> 'running'
""")


@dataclass
class Report:
    cases: int = 0
    internal_errors: int = 0
    """Runs and attempts that end with a fault of the platform, and starts that answer so."""
    reads_500: int = 0
    rows_running: int = 0
    """Executions that are running though their run has ended, and runs that have not."""
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    """door and how it ended → how often"""
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.internal_errors or self.reads_500 or self.rows_running)

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "internal_errors": self.internal_errors,
            "reads_500": self.reads_500,
            "rows_running": self.rows_running,
            "seconds": round(self.seconds, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "faults": self.faults[:20],
        }


@asynccontextmanager
async def platform(cases: Sequence[Case]) -> AsyncIterator[Stack]:
    """A platform that knows the strangers."""
    stranger = Stranger(cases)
    async with serving(stranger.answer) as host:
        given = dict.fromkeys(_ALLOWED, host) | dict.fromkeys(_LIMITS, "1000000")
        async with stack((*SERVERS, "worker", "api"), given) as on, stranger.working(on.client):
            async with httpx.AsyncClient(base_url=on.supervisor.addresses["api"], timeout=60) as http:
                await _prepare(http, host)
            yield on


def definitions(host: str) -> list[dict[str, Any]]:
    once = {"max_attempts": 1}
    ask = {"kind": "agent", "agent": "a", "prompt": "case ${input.case}.", "timeout": "20s", "retry": once}
    found: list[dict[str, Any]] = [
        {"name": "echo", "steps": {"s": {"kind": "transform", "value": "${input}"}}},
        {
            "name": "page",
            "steps": {
                "s": {
                    "kind": "tool",
                    "tool": "http",
                    "retry": once,
                    "args": {"url": f"http://{host}/page/${{input.case}}"},
                }
            },
        },
        {
            "name": "activity",
            "steps": {
                "s": {
                    "kind": "tool",
                    "activity": "strange",
                    "task_queue": QUEUE,
                    "retry": once,
                    "args": {"case": "${input.case}"},
                }
            },
        },
        {
            "name": "parse",
            "steps": {"s": {"kind": "tool", "tool": "json.parse", "args": {"text": "${input.text}"}}},
        },
    ]
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "agent-text": ({}, {}),
        "agent-json": ({}, {"output_schema": {}}),
        "agent-tools": ({"tools": ["text.diff"]}, {}),
    }
    for number in range(MODELS):
        for name, (agent, step) in kinds.items():
            agents = {"a": {"model": f"stranger/m{number}", **agent}}
            found.append({"name": f"{name}-{number}", "agents": agents, "steps": {"s": ask | step}})
    return found


async def _prepare(http: httpx.AsyncClient, host: str) -> None:
    provider = {"kind": "openai_compatible", "base_url": f"http://{host}/v1"}
    (await http.put("/v1/providers/stranger", json=provider)).raise_for_status()
    for number in range(MODELS):
        price = {"input_usd": 1, "output_usd": 2}
        (await http.put(f"/v1/prices/stranger/m{number}", json=price)).raise_for_status()
    for definition in definitions(host):
        (await http.post("/v1/definitions", json=definition)).raise_for_status()


async def play(on: Stack, cases: Sequence[Case]) -> Report:
    """Send every case, some at a time, and look at what is left of it."""
    report, began = Report(cases=len(cases)), time.monotonic()
    slots = asyncio.Semaphore(AT_A_TIME)
    async with httpx.AsyncClient(base_url=on.supervisor.addresses["api"], timeout=60) as http:
        hook = (await http.post("/v1/webhooks", json={"name": "echo"})).raise_for_status().json()
        playing = _CasePlayer(on, http, httpx.URL(hook["url"]).path, report)

        async def one(number: int, case: Case) -> None:
            async with slots:
                await playing.one(number, case)

        await asyncio.gather(*(one(number, case) for number, case in enumerate(cases)))
    await _count(on, report)
    report.seconds = time.monotonic() - began
    return report


async def _count(on: Stack, report: Report) -> None:
    until = time.monotonic() + SETTLES_SECONDS
    while running := await _rows(on, _RUNNING):
        if time.monotonic() > until:
            break
        await asyncio.sleep(0.2)
    report.rows_running += len(running)
    report.faults += [f"{id} is left running: {what}" for id, what in running]
    report.internal_errors += (await _rows(on, _FAULTS))[0][0]


async def _rows(on: Stack, query: TextClause) -> list[Any]:
    async with on.engine.connect() as connection:
        return list(await connection.execute(query))


class _CasePlayer:
    def __init__(self, on: Stack, http: httpx.AsyncClient, hook: str, report: Report) -> None:
        self._on, self._http, self._hook, self._report = on, http, hook, report

    async def one(self, number: int, case: Case) -> None:
        id = await self._start(number, case)
        outcome = await self._end(id, case) if id else "refused"
        self._report.outcomes[f"{case.door} {outcome}"] += 1
        if id:
            await self._read(id, case)

    async def _start(self, number: int, case: Case) -> str | None:
        """The run's id; None where the start was refused."""
        match case.door:
            case "input":
                return await self._post(
                    "/v1/collaborations", b'{"definition": "echo", "input": %s}' % case.data
                )
            case "body":
                return await self._post("/v1/collaborations", case.data, case)
            case "webhook":
                return await self._post(self._hook, case.data, case)
            case "websocket":
                return await self._say(case)
            case "temporal":
                return await self._begin("echo", number, raw(case.data), case)
            case "parse":
                return await self._begin(
                    "parse", number, {"text": case.data.decode("utf-8", "replace")}, case
                )
            case "provider":
                name = f"{case.definition}-{number % MODELS}"
                return await self._begin(name, number, {"case": number}, case)
        return await self._begin(case.definition, number, {"case": number}, case)

    async def _post(self, path: str, data: bytes, case: Case | None = None) -> str | None:
        kind = case.content_type if case else "application/json"
        answer = await self._http.post(path, content=data, headers={"Content-Type": kind} if kind else {})
        if answer.status_code >= 500:
            self._fault(f"{path} {answer.status_code} {answer.text[:300]} {data[:200]!r}")
        return str(answer.json()["id"]) if answer.status_code == 202 else None

    async def _say(self, case: Case) -> str | None:
        url = self._on.supervisor.addresses["api"].replace("http", "ws", 1)
        try:
            async with connect(f"{url}/ws/collaborate?definition=echo", proxy=None) as socket:
                await socket.send(case.data, text=True)
                told = json.loads(await asyncio.wait_for(socket.recv(), HANGS_AFTER_SECONDS))
        except WebSocketException:
            return None
        if told.get("code") == "internal_error":
            self._fault(f"websocket {told} {case.data[:200]!r}")
        return str(told["id"]) if told.get("type") == "started" else None

    async def _begin(self, name: str, number: int, input: Any, case: Case) -> str | None:
        id = f"{case.door}-{number}"
        try:
            await self._on.client.start_workflow(name, input, id=id, task_queue=QUEUE_COLLABORATIONS)
        except RPCError:
            return None
        return id

    async def _end(self, id: str, case: Case) -> str:
        try:
            handle = self._on.client.get_workflow_handle(id, result_type=RawValue)
            await asyncio.wait_for(handle.result(), HANGS_AFTER_SECONDS)
        except TimeoutError:
            self._report.rows_running += 1
            self._report.faults.append(f"{id} does not end: {case}")
            return "hangs"
        except WorkflowFailureError as error:
            code = getattr(error.cause, "type", None) or type(error.cause).__name__
            if code in ("internal_error", "step_failed") or code[:1].isupper():
                self._fault(f"{id} {code}: {error.cause} {str(case)[:400]}")
            return str(code)
        return "completed"

    async def _read(self, id: str, case: Case) -> None:
        for path in ("?include=input,output,lineage", "/steps/s", "/steps/s/details"):
            answer = await self._http.get(f"/v1/collaborations/{id}{path}")
            if answer.status_code >= 500:
                self._report.reads_500 += 1
                self._report.faults.append(f"GET {id}{path} {answer.status_code}: {answer.text[:200]} {case}")

    def _fault(self, what: str) -> None:
        self._report.internal_errors += 1
        self._report.faults.append(what)


async def run(number: int, starts_with: int) -> Report:
    cases = draw(number, starts_with)
    async with platform(cases) as on:
        return await play(on, cases)


def _main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = asyncio.run(run(options.cases, options.seed))
    print(json.dumps(report.as_json(), indent=None if options.json else 2))
    return 0 if report.holds else 1


if __name__ == "__main__":
    raise SystemExit(_main())
