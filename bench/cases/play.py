"""Plays one case on a platform of its own."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
from temporalio.client import Client

from bench.cases import doors
from bench.cases.case import Case
from bench.cases.judge import (
    CaseResponse,
    CaseRun,
    codes_of,
    faults_of_answers,
    faults_of_run,
    filled,
    in_range,
    is_told,
    placed,
)
from bench.cases.servers import NEIGHBOUR, PageServer, Provider
from bench.loopback import serving
from tests.support.stack import Stack, stack

_SERVICES: Final = ("temporal", "postgres", "migrate", "api", "worker")
_ENDS_SECONDS: Final = 60.0
_SETTLED_SECONDS: Final = 60.0
_ROWS_SECONDS: Final = 5.0
_NEIGHBOUR_AFTER_SECONDS: Final = 2.0
_NEIGHBOUR_SECONDS: Final = 30.0
_KEY_VARIABLE: Final = "FACILITAIR_KEY_DEFAULT__CASES"
_NEIGHBOUR_DEFINITION: Final = {
    "name": "healthy-neighbour",
    "agents": {"a": {"model": f"fake/{NEIGHBOUR}"}},
    "steps": {"s": {"kind": "agent", "agent": "a", "prompt": "Go.", "timeout": "30s"}},
}


@dataclass
class Verdict:
    """What came of a case."""

    name: str
    expected: dict[str, Any]
    got: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not self.wrong


async def play(case: Case) -> Verdict:
    """Play a case; what goes wrong in the playing counts as wrong."""
    verdict = Verdict(case.name, case.expected)
    try:
        async with _world(case) as player:
            await player.play(verdict)
    except Exception as error:  # one case that cannot be played leaves the others
        verdict.wrong.append(f"it could not be played: {type(error).__name__}: {error}")
    return verdict


@asynccontextmanager
async def _world(case: Case) -> AsyncIterator["_Player"]:
    """The platform, the provider and the page of a case."""
    provider = Provider(case)
    page = PageServer(case.page) if case.page else None
    at = serving(page.answer, page.page.host, page.page.port) if page else nullcontext("")
    async with serving(provider.answer) as host, at as page_host:
        environment = {
            "FACILITAIR_PROVIDER_HOSTS": host,
            "FACILITAIR_HTTP_TOOL_ALLOW": page_host,
            _KEY_VARIABLE: "none",
        }
        async with stack(_SERVICES, environment) as on:
            await on.wait_ready("api", "worker", timeout_seconds=180)
            bare = await Client.connect(
                on.settings.temporal_address, namespace=on.settings.temporal_namespace
            )
            async with httpx.AsyncClient(base_url=on.supervisor.addresses["api"], timeout=60) as http:
                player = _Player(case, on, http, bare, provider, page)
                await player.prepare(host)
                yield player


@dataclass
class _Player:
    case: Case
    on: Stack
    http: httpx.AsyncClient
    bare: Client
    provider: Provider
    page: PageServer | None
    known: dict[str, str] = field(default_factory=dict)
    """What requests have taken from answers."""
    started: set[str] = field(default_factory=set)
    """The runs that requests have started."""

    async def prepare(self, host: str) -> None:
        """Make the provider and its prices known."""
        models = self.case.models | {f"fake/{NEIGHBOUR}"}
        for name, kind in (("fake", "openai_compatible"), ("anth", "anthropic")):
            provider = {"kind": kind, "base_url": f"http://{host}/v1", "key_ref": "cases"}
            (await self.http.put(f"/v1/providers/{name}", json=provider)).raise_for_status()
        for model in sorted(models):
            price = {"input_usd": 1, "output_usd": 2}
            (await self.http.put(f"/v1/prices/{model}", json=price)).raise_for_status()

    async def play(self, verdict: Verdict) -> None:
        refused = await self._upload(verdict)
        if refused:
            return
        requests = self.case.expected.get("requests", [])
        if "run" not in self.case.expected:
            await self._send(requests, verdict)
            return
        await self._send([one for one in requests if one.get("before")], verdict)
        for number, start in enumerate(self.case.starts):
            await self._play_run(start, number, verdict)

    async def _upload(self, verdict: Verdict) -> bool:
        """Upload and validate; return whether it was refused."""
        json_text = {"content-type": "application/json"}
        uploaded = await self._ask("POST", "/v1/definitions", self.case.definition, json_text)
        codes = codes_of(uploaded.document)
        verdict.got["upload"] = {"status": uploaded.status, "codes": codes}
        expected = self.case.expected.get("upload", "accepted")
        outcomes = expected if isinstance(expected, list) else [expected]
        if not any(_fits(one, uploaded.status, codes) for one in outcomes):
            verdict.wrong.append(f"upload: expected {expected}, got {uploaded.status} {uploaded.text[:600]}")
        if uploaded.status >= 500:
            verdict.wrong.append(f"upload: {uploaded.status}")
        if wanted := self.case.expected.get("validate_has"):
            validated = await self._ask("POST", "/v1/definitions/validate", self.case.definition, json_text)
            shown = [one for one in codes + codes_of(validated.document) if one["code"]]
            missing = [one for one in wanted if not (shown if one == "*" else is_told(one, shown))]
            if missing:
                verdict.wrong.append(f"validate_has: {missing} not in {validated.text[:600]}")
        return uploaded.status >= 400

    async def _play_run(self, start: str, number: int, verdict: Verdict) -> None:
        expected = self.case.expected["run"]
        calls, served = len(self.provider.asked_by_runs), self.page.served if self.page else 0
        began = time.monotonic()
        neighbour = asyncio.create_task(self._neighbour()) if self.case.expected.get("neighbour") else None
        got = await self._start(start, number)
        if got.status == "refused":
            await self._send(self._unnamed(), verdict)
        else:
            await self._follow(got, began, verdict)
        got.calls = len(self.provider.asked_by_runs) - calls
        got.served = (self.page.served if self.page else 0) - served
        if neighbour:
            verdict.wrong += await neighbour
        verdict.wrong += [f"run {number}: {fault}" for fault in faults_of_run(expected, got)]
        shown = {name: value for name, value in vars(got).items() if value not in ("", [], {}, None)}
        verdict.got.setdefault("runs", []).append(shown)

    async def _start(self, start: str, number: int) -> CaseRun:
        name, expected = self.case.definition_name, self.case.expected
        id = str(expected.get("id") or f"case-{uuid.uuid4().hex[:12]}")
        id = id if number == 0 else f"{id}-{number}"
        match expected.get("door", "http"):
            case "temporal":
                return await doors.by_temporal(self.bare, name, id, start)
            case "websocket":
                return await doors.by_socket(str(self.http.base_url), name, start)
            case "cli":
                return await self._start_by_command(expected["argv"])
            case _:
                body = f'{{"definition": {json.dumps(name)}, "id": {json.dumps(id)}, "input": {start}}}'
                answer = await self._ask(
                    "POST", "/v1/collaborations", body, {"content-type": "application/json"}
                )
                return CaseRun(id, "running") if answer.status < 400 else doors.refused(answer)

    async def _start_by_command(self, argv: list[str]) -> CaseRun:
        before = await self._runs()  # the row of a run may come a moment after its start
        answer = await doors.command(self.on.supervisor.data, argv)
        new = [id for id in await self._runs() if id not in before and id not in self.started]
        got = CaseRun(new[0], "running") if new else CaseRun()
        got.exit, got.message = answer.status, answer.text
        got.codes = answer.text.replace(":", " ").split()
        return got

    async def _runs(self) -> list[str]:
        listed = await self._ask("GET", "/v1/collaborations?limit=200")
        return [str(one["id"]) for one in listed.document["items"]]

    async def _follow(self, got: CaseRun, began: float, verdict: Verdict) -> None:
        """Send the requests of a run that goes on, wait for its end and see what is left of it."""
        expected = self.case.expected["run"]
        known = self.known | {"run": got.id, "text": got.text}
        during, after = self._named(False), self._named(True)
        await self._send(during, verdict, known)
        if "running" in expected.get("status", ()) and await self._still_runs(got.id):
            await self._ask("POST", f"/v1/collaborations/{quote(got.id, safe='')}/cancel")
            await self._send(after, verdict, known)
            return
        await self._wait_end(got, began + float(expected.get("ends_within_seconds", _ENDS_SECONDS)))
        got.seconds = time.monotonic() - began
        if got.status != "refused":
            await self._see(got, expected)
            await self._send(after, verdict, known)

    async def _wait_end(self, got: CaseRun, until: float) -> None:
        """Wait for the end of a run, a little beyond its time; it fills in how it ended."""
        if self.case.expected.get("door") == "temporal":
            failure = await doors.end_at_temporal(self.bare, got.id, until - time.monotonic() + 5)
            if failure is not None:
                got.status, got.codes, got.message = failure.status, failure.codes, failure.message
        while time.monotonic() < until + 5:
            detail = await self._detail(got.id)
            if detail is not None and detail["status"] != "running":
                got.status = detail["status"]
                error = detail["error"] or {}
                if got.exit is None:
                    got.message = "\n".join(filter(None, (got.message, error.get("message", ""))))
                got.codes += [error.get("code", "")] if error else []
                got.output = detail.get("output")
                return
            if detail is None and got.status == "failed":
                got.status = "refused"
                return
            await asyncio.sleep(0.05)

    async def _see(self, got: CaseRun, expected: dict[str, Any]) -> None:
        """Fill in what is left of a run that has ended: rows, calls, cost."""
        if "rows_running_after" in expected:
            await asyncio.sleep(_ROWS_SECONDS)
        wanted = [one["cost_usd"] for one in (expected, *expected.get("any_of", ())) if "cost_usd" in one]
        until = time.monotonic() + _SETTLED_SECONDS
        while True:
            detail = await self._detail(got.id) or {}
            got.cost_usd = float(detail.get("cost_usd", 0.0))
            if all(in_range(one, got.cost_usd) for one in wanted) or time.monotonic() > until:
                break
            await asyncio.sleep(0.5)
        got.attempts = await self._attempts(got.id)
        got.rows_running_after = sum(1 for row in got.attempts if row["status"] == "running")
        if self.case.expected.get("door") == "temporal" and got.status == "failed" and not got.attempts:
            got.status = "refused" if "cancelled" not in got.codes else got.status
        paths = {path for one in (expected, *expected.get("any_of", ())) for path in one.get("steps", {})}
        for path in paths:
            place = f"/v1/collaborations/{quote(got.id, safe='')}/steps/{quote(path, safe='')}/details"
            answer = await self._ask("GET", place)
            got.details[path] = (
                answer.text if answer.document is None else json.dumps(answer.document, ensure_ascii=False)
            )
        if asked := self.provider.asked_by_runs:
            got.tool_calls = _tool_calls(asked[-1].body)

    async def _attempts(self, id: str) -> list[dict[str, Any]]:
        rows, after = list[dict[str, Any]](), ""
        while True:
            query = f"?after={quote(after)}" if after else ""
            answer = await self._ask("GET", f"/v1/collaborations/{quote(id, safe='')}{query}")
            page = answer.document or {}
            if answer.status != 200 or "steps" not in page:
                raise ValueError(f"the steps of {id} cannot be read: {answer.status} {answer.text[:300]}")
            rows += page["steps"]
            if not (after := page.get("next") or ""):
                return rows

    async def _detail(self, id: str) -> dict[str, Any] | None:
        answer = await self._ask("GET", f"/v1/collaborations/{quote(id, safe='')}?include=output")
        return dict(answer.document) if answer.status == 200 else None

    async def _still_runs(self, id: str) -> bool:
        return (await self._detail(id) or {}).get("status") == "running"

    def _named(self, after: bool) -> list[dict[str, Any]]:
        requests = self.case.expected.get("requests", [])
        return [one for one in requests if not one.get("before") and bool(one.get("after")) == after]

    def _unnamed(self) -> list[dict[str, Any]]:
        """The requests that are sent although nothing was started: they name neither the run nor its id."""
        id = str(self.case.expected.get("id") or "${run}")
        named = ("${run}", id, quote(id, safe=""))
        requests = [*self._named(False), *self._named(True)]
        return [one for one in requests if not any(name in json.dumps(one) for name in named)]

    async def _send(
        self, requests: Iterable[dict[str, Any]], verdict: Verdict, known: dict[str, str] | None = None
    ) -> None:
        """Send requests in their order and judge the answers."""
        known = self.known if known is None else known
        for request in requests:
            try:
                ready = filled({key: value for key, value in request.items() if key != "take"}, known)
            except KeyError as missing:
                if "run" in known or "run" not in self.case.expected:
                    verdict.wrong.append(f"{request.get('path')}: nothing was taken as {missing}")
                continue
            answers, faults = await self._send_until(ready)
            named = " ".join(ready.get("argv") or (ready["method"], ready["path"]))
            verdict.wrong += [f"{named}: {fault}" for fault in faults]
            verdict.got.setdefault("requests", []).append(
                {"request": named, "answers": [f"{one.status} {one.text[:300]}" for one in answers]}
            )
            for name, place in request.get("take", {}).items():
                if (found := placed(answers[0].document, place)) is not None:
                    known[name] = self.known[name] = str(found)

    async def _send_until(self, request: dict[str, Any]) -> tuple[list[CaseResponse], list[str]]:
        """Send a request, again and again where it says so until its answers are right."""
        await asyncio.sleep(float(request.get("wait_seconds", 0)))
        until = time.monotonic() + float(request.get("poll_seconds", 0))
        while True:
            answers = await self._send_at_once(request)
            faults = faults_of_answers(request.get("expect", {}), answers)
            if not faults or time.monotonic() > until:
                return answers, faults
            await asyncio.sleep(0.2)

    async def _send_at_once(self, request: dict[str, Any]) -> list[CaseResponse]:
        if argv := request.get("argv"):
            return [await doors.command(self.on.supervisor.data, argv)]
        bodies = request.get("bodies") or [request.get("body")] * int(request.get("at_once", 1))
        headers = request.get("headers", {})
        if not any(name.lower() == "content-type" for name in headers):
            headers = headers | {"Content-Type": "application/json"}
        contents = [body if body is None or isinstance(body, str) else json.dumps(body) for body in bodies]
        asked = (self._ask(request["method"], request["path"], content, headers) for content in contents)
        return list(await asyncio.gather(*asked))

    async def _ask(
        self, method: str, path: str, content: str | None = None, headers: dict[str, str] | None = None
    ) -> CaseResponse:
        began = time.monotonic()
        data = content.encode("utf-8", "surrogatepass") if content is not None else None
        answer = await self.http.request(method, path, content=data, headers=headers)
        found = CaseResponse(answer.status_code, answer.text, time.monotonic() - began)
        if found.status == 202 and isinstance(found.document, dict):
            self.started.add(str(found.document.get("id")))
        return found

    async def _neighbour(self) -> list[str]:
        """Start a healthy run beside the case's and return what is wrong with it."""
        await asyncio.sleep(_NEIGHBOUR_AFTER_SECONDS)
        text = self.case.neighbour or json.dumps(_NEIGHBOUR_DEFINITION)
        uploaded = await self._ask("POST", "/v1/definitions", text, {"content-type": "application/json"})
        id, name = f"neighbour-{uuid.uuid4().hex[:8]}", json.loads(text)["name"]
        body = json.dumps({"definition": name, "id": id, "input": {}})
        await self._ask("POST", "/v1/collaborations", body, {"content-type": "application/json"})
        began = time.monotonic()
        while (detail := await self._detail(id) or {"status": "running"})["status"] == "running":
            if time.monotonic() > began + _NEIGHBOUR_SECONDS:
                break
            await asyncio.sleep(0.1)
        calls = sum(1 for call in self.provider.asked if not call.script)
        fine = detail.get("status") == "completed" and calls == 1
        told = f"{detail.get('status')} with {calls} calls, {detail.get('error')}, {uploaded.status}"
        return [] if fine else [f"neighbour: {told}"]


def _fits(expected: str | dict[str, Any], status: int, codes: list[dict[str, str]]) -> bool:
    if expected == "accepted":
        return status < 400
    assert isinstance(expected, dict)
    return 400 <= status < 500 and any(is_told(code, codes) for code in expected["refused"])


def _tool_calls(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls that stand in a request, in order."""
    calls = (call for message in request.get("messages", []) for call in message.get("tool_calls") or ())
    return [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in calls
    ]
