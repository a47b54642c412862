"""A run followed over a stream that breaks: nothing is lost, nothing comes twice."""

import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner

from api.dialects.agui import AGUI
from api.dialects.frames import frame
from cli.client import Api
from cli.main import app
from cli.watch import follow, stream
from cli.watch.agui import Reader
from cli.watch.lines import Speech
from cli.watch.stream import messages
from schema.live import (
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    PlacedEvent,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
RUN = "0af76519-16cd-43dd-8448-eb211c80319c"
MODEL = "m/x"
STARTED = AT.isoformat()
FACTS: dict[str, Any] = {
    "id": "hello-1",
    "run_id": RUN,
    "name": "hello",
    "version": 1,
    "task": "",
    "status": "running",
    "sub_state": "",
    "error": None,
    "quality": None,
    "started_at": STARTED,
    "completed_at": None,
    "seconds": 1.5,
    "steps_done": 1,
    "tokens": 10,
    "cost_usd": 0.25,
    "trace_id": "t",
    "steps": [],
}
ATTEMPT = {
    "id": "e2",
    "path": "write",
    "step": "write",
    "attempt": 2,
    "kind": "agent",
    "agent": "coder",
    "model": MODEL,
    "requested_model": MODEL,
    "status": "completed",
    "tokens": 10,
    "cost_usd": 0.25,
    "seconds": 1.5,
    "simulated": False,
    "error": None,
}


def story() -> list[LiveEvent]:
    """A run that has everything in it, and texts that trip careless readers of lines."""
    return [
        RunBegan("hello-1", RUN, "hello", 1, "task", kept={"plan": "completed"}),
        StepBegan("e1", "write", "write", "agent", 1, "coder", MODEL),
        TokensCame("e1", "write", "lost", 0, 2),
        StepEnded("e1", "write", "write", "agent", 1, "coder", "superseded", MODEL),
        StepBegan("e2", "write", "write", "agent", 2, "coder", MODEL),
        *(TokensCame("e2", "write", f"{n} é\u2028宽\n", n, 1) for n in range(40)),
        StepBegan("e3", "ship/it", "ship/it", "human", 1, "", ""),
        PeopleAsked("t1", "ship/it", "Ship?", ["user:ada"]),
        Steered("pause", "user:ada", {}),
        PeopleDecided("t1", "ship/it", "user:ada", "approve", closed=True),
        StepEnded("e2", "write", "write", "agent", 2, "coder", "completed", MODEL, 1, 9, 0.25, 1500),
        StepEnded("", "extra", "extra", "", 0, "", "skipped"),
        RunEnded("completed", "", None, 0.25, None, 1500),
    ]


@dataclass
class Cutter:
    """The API, which breaks every answer of its stream somewhere."""

    chance: random.Random
    blocks: list[tuple[str, bytes]] = field(default_factory=list)
    cuts: int = 0
    asked: list[str] = field(default_factory=list)
    ended: bool = False
    address: str = ""

    def __post_init__(self) -> None:
        before = "0.0"
        for number, event in enumerate(story(), 1):
            live = PlacedEvent(f"{number:x}.{number:x}", AT, event)
            for block in frame(AGUI, RUN, before, live).split(b"\n\n")[:-1]:
                id = block.partition(b"\n")[0].removeprefix(b"id: ").decode()
                self.blocks.append((id, block + b"\n\n"))
            before = live.place

    def rest(self, place: str) -> bytes:
        self.asked.append(place)
        ids = [id for id, _ in self.blocks]
        first = ids.index(place) + 1 if place else 0
        whole = b": alive\n\n" + b"".join(block for _, block in self.blocks[first:])
        if self.cuts < 8:
            self.cuts += 1
            return whole[: self.chance.randint(0, min(len(whole) - 1, 1_500))]
        self.ended = True
        return whole


@pytest.fixture(params=range(5))
def cutter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cutter]:
    monkeypatch.setattr(stream, "_PAUSE_SECONDS", 0.001)
    cutter = Cutter(random.Random(request.param))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path.removeprefix("/v1")
            if path == "/collaborations/hello-1/stream":
                # Without a length: the end of the connection is the end, as of a server that dies.
                self.send_response(200)
                self.end_headers()
                self.wfile.write(cutter.rest(self.headers.get("last-event-id") or ""))
                return
            answers: dict[str, Any] = {
                "/collaborations/hello-1": FACTS
                | ({"status": "completed", "steps": [ATTEMPT], "output": "hi"} if cutter.ended else {}),
                "/definitions/hello/plan": {"steps": [{"id": "plan"}, {"id": "write"}]},
                "/tasks/t1": {"actions": [{"id": "approve"}, {"id": "reject"}]},
            }
            data = json.dumps(answers[path]).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cutter.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield cutter
    server.shutdown()
    thread.join()
    server.server_close()


def without_counts(event: LiveEvent) -> LiveEvent:
    if isinstance(event, TokensCame):
        return TokensCame(event.execution, "", event.text, 0, max(len(event.text) // 4, 1))
    return event


def test_events_survive_the_wire() -> None:
    reader = Reader()
    wire = b"".join(block for _, block in Cutter(random.Random(0)).blocks)
    # Byte by byte: a chunk may end within a character.
    chunks = [wire[at : at + 1] for at in range(len(wire))]
    found = [live for _, event in messages(chunks) for live in reader.read(event)]
    assert found == [without_counts(event) for event in story()]


def test_a_failed_run_has_ended_too() -> None:
    reader = Reader()
    live = PlacedEvent("1.1", AT, RunEnded("failed", "", "tool_failed", 0.5, None, 9))
    found = [one for _, event in messages([frame(AGUI, RUN, "0.0", live)]) for one in reader.read(event)]
    assert found == [RunEnded("failed", "", "tool_failed", 0.0, None, 0)]


def test_a_stream_that_is_cut_goes_on_where_it_was(cutter: Cutter) -> None:
    api, reader, found = Api(cutter.address), Reader(), list[LiveEvent]()
    with stream.Stream(api, "hello-1") as coming:
        over = False
        while not over:
            events, over = coming.take(1)
            found += [live for event in events for live in reader.read(event)]
    assert found == [without_counts(event) for event in story()]
    assert len(cutter.asked) == 9


def test_watch_prints_every_change_and_every_token_once(cutter: Cutter) -> None:
    result = CliRunner().invoke(app, ["watch", "hello-1", "--tokens", "--url", cutter.address])
    assert result.exit_code == 0, result.output
    told, _, end = result.stdout.partition("hi\n")
    assert told.splitlines() == [
        "write │ lost",
        "write │ ✗ forget this attempt: another attempt takes over",
        *(f"write │ {n} é 宽" for n in range(40)),
    ]
    assert "total" in end
    assert result.stderr.splitlines() == [
        "write: running · coder",
        "write: superseded · m/x",
        "write: running (attempt 2) · coder",
        "ship/it: running",
        "ship/it: asks user:ada: Ship?: `facilitair decide t1 approve|reject`",
        "pause by user:ada",
        "write: completed (attempt 2) · m/x",
        "extra: skipped",
    ]


def test_a_run_that_is_not_there_is_not_waited_for(cutter: Cutter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RECONNECT_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(stream, "RECONNECT_TIMEOUT_SECONDS", 0.0)
    result = CliRunner().invoke(app, ["watch", "hello-1", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "api_unreachable" in result.stderr


def test_of_several_who_speak_at_once_each_finishes_its_line() -> None:
    file = StringIO()
    speech = Speech(Console(file=file, width=200))
    for execution, path in (("a", "left"), ("b", "right")):
        speech.tell(StepBegan(execution, path, path, "agent", 1, "coder", MODEL))
    for execution, text in (
        ("a", "one "),
        ("b", "un "),
        ("a", "two\nthr"),
        ("b", "deux\ntrois"),
        ("a", "ee\n"),
    ):
        speech.tell(TokensCame(execution, "", text, 0, 1))
    for execution, path in (("a", "left"), ("b", "right")):
        speech.tell(StepEnded(execution, path, path, "agent", 1, "coder", "completed"))
    assert file.getvalue().splitlines() == [
        "left │ one two",
        "left │ three",
        "right │ un deux",
        "right │ trois",
    ]
