"""Whatever a command prints, it cannot steer the terminal that shows it."""

import ast
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import typer
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from api.app import create_app
from api.dialects.agui import AGUI
from api.dialects.frames import frame
from cli.main import app, main
from cli.terminal import Terminal, clean
from schema.live import (
    LiveEvent,
    PeopleAsked,
    PlacedEvent,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
)
from schema.settings import Settings
from tests.unit.cli.test_watch_stream import AT, RUN

ROOT = Path(__file__).parents[3]
SEQUENCES = (
    "\x1b]0;owned\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://evil.test\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[8m",
    "\x1bc",
    "\x1bP$q\x1b\\",
    "\x9b2J",
    "\x9d0;owned\x9c",
    "\x90q\x9c",
    "good\revil",
    "a\b\b\b",
    "\x00\x05\x0b\x0c\x0e\x7f",
    "\u202eevil\u202c",
    "\u2066\u2069\u200f\u061c",
    "\u2028\u2029",
    "\ud800",
    "\U000e0041\U000e0042",
    "\ufff9",
    "[link=http://evil.test]x[/link]",
    "[/nothing]",
    ":skull:",
)
HOSTILE = "".join(SEQUENCES)
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
RICHS_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\d*A|2K|\?25[lh]|\d*G)|\r(?=\x1b\[\d*[AK]|\n|\Z)")
"""Colours, and what redraws a picture in its place."""


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("terminal", [True, False])
def test_no_sequence_comes_through_the_console(
    sequence: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    console = Terminal()
    console.file = written = io.StringIO()
    table = Table(sequence)
    table.add_row(sequence, Text(sequence))
    for one in (sequence, Text(sequence, style="bold"), Text.assemble((sequence, "red")), table, [sequence]):
        console.print(one)
    console.print(sequence, markup=False, soft_wrap=True)
    console.print(sequence, style="red", end="")
    assert STEERING.findall(RICHS_OWN.sub("", written.getvalue())) == []
    assert "\x1b]8" not in written.getvalue()


def test_honest_text_stays_as_it_is() -> None:
    honest = "naïve 宽 👩‍👩‍👧 עברית\n\tdef f(): [red] :smile: return {}\n"
    assert clean(honest) == honest
    console = Terminal()
    console.file = written = io.StringIO()
    console.print("[bold]x[/bold] :smile: [link=a]")
    assert written.getvalue() == "[bold]x[/bold] :smile: [link=a]\n"


def test_json_keeps_each_character_and_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.output import print_json

    print_json({"a": HOSTILE, HOSTILE: 1})
    written = capsys.readouterr().out
    assert STEERING.findall(written) == []
    assert json.loads(written) == {"a": HOSTILE, HOSTILE: 1}


def test_commands_print_by_the_one_console_alone() -> None:
    """No second console, no `print`, no `typer.echo`; JSON goes to stdout as it is."""
    found = set()
    for path in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("print", "Console", "typer.echo", "typer.secho", "click.echo", "sys.stderr.write"):
                found.add((path.name, called))
            if called == "sys.stdout.write" and "json" not in ast.unparse(node):
                found.add((path.name, called))
    assert found == set()


# -- every command, against an API that is hostile in every text that it may answer --------------------------

ID = "0af76519-16cd-43dd-8448-eb211c80319c"
COMMANDS: dict[str, list[str]] = {
    "adjust": ["x", "--model", "m/x"],
    "alias": ["n@a", "1"],
    "apply": ["FILE"],
    "archive": ["--dry-run"],
    "cancel": ["x"],
    "decide": [ID, "approve"],
    "deprecate": ["n", "1", "--reason", "r"],
    "diff": ["n", "1", "2"],
    "dry-run": ["n"],
    "estimate": ["n"],
    "forget": ["--simulated", "--dry-run"],
    "fork": ["x", "--from", "a", "--no-wait"],
    "graph": ["MATCH (n) RETURN n"],
    "limits": [],
    "limits remove": ["tenant", "--per", "day"],
    "limits set": ["tenant", "--per", "day", "--usd", "1"],
    "list": ["--runs"],
    "pause": ["x"],
    "plan": ["n"],
    "playback": ["x", "--speed", "0"],
    "prices": [],
    "prices set": ["m/x", "--in", "1", "--out", "1"],
    "prices show": ["m/x"],
    "prompts diff": ["n", "1", "2"],
    "prompts list": [],
    "prompts optimize": ["n", "--show"],
    "prompts promote": ["n", "1"],
    "prompts remove": ["n"],
    "prompts set": ["n", "--system", "s"],
    "prompts show": ["n"],
    "prompts trial look": ["n"],
    "prompts trial show": ["n"],
    "prompts trial start": ["n", "--candidate", "2"],
    "prompts trial stop": ["n"],
    "providers": [],
    "providers remove": ["n"],
    "providers set": ["n", "--kind", "openai", "--key-ref", "k"],
    "rerun": ["x", "--no-wait"],
    "resume": ["x"],
    "roles": [],
    "roles remove": ["n"],
    "roles set": ["n", "--model", "m/x", "--system", "s"],
    "rollback": ["n"],
    "router checkpoints": [],
    "router export": ["1", "NEW"],
    "router lift": ["m/x"],
    "router outcome": ["x", "a", "1"],
    "router predict": ["task"],
    "router promote": ["1"],
    "router rollback": [],
    "router status": [],
    "router train": [],
    "router trainings": [],
    "run": ["n"],
    "runs": [],
    "schedule add": ["n", "--every", "1h"],
    "schedule list": [],
    "schedule pause": ["x"],
    "schedule remove": ["x"],
    "schedule resume": ["x"],
    "schedule run": ["x"],
    "show": ["x"],
    "skills": [],
    "skills remove": ["n"],
    "skills set": ["n", "--instructions", "i"],
    "spending": [],
    "stop": ["x"],
    "tasks": [],
    "tasks show": [ID],
    "tell": ["x", "text"],
    "trace": ["x"],
    "validate": ["FILE"],
    "versions": ["n"],
    "watch": ["x"],
    "webhook add": ["n"],
    "webhook list": [],
    "webhook remove": ["x"],
}
"""Every command, and how it is called here."""
LOCAL = {"demo", "doctor", "down", "router evaluate", "status", "up"}
"""These ask no API. They say what this machine says, by the same console."""


def leaves(command: Any, path: str = "") -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield path.strip()
        return
    if getattr(command, "invoke_without_command", False):
        yield path.strip()
    for name, below in command.commands.items():
        yield from leaves(below, f"{path} {name}")


def test_each_command_is_listed_here() -> None:
    assert set(leaves(typer.main.get_command(app))) == set(COMMANDS) | LOCAL


class Answers:
    """What the API may answer by its own description, with hostile texts wherever it leaves the choice."""

    STATES: Final = {
        "status": "completed",
        "sub_state": "",
        "kind": "agent",
        "op": "add",
        "frame": "",
        "change": "changed",
        "next": None,
    }
    """Where the API has one of few words, which its description does not list; and no page is followed by
    another."""

    def __init__(self) -> None:
        self.document = create_app(Settings()).openapi()

    def to(self, method: str, path: str) -> Any:
        """Objects that the description leaves free get the keys that a command reads of them."""
        texts = dict.fromkeys(("id", "what", "quorum", "when", "done", "from", "to", "label"), HOSTILE)
        counts = dict.fromkeys(("usd", "executions", "events", "model_calls"), 1)
        tree = {"executions": 1, "children": 1}
        plan = {**texts, **counts, "frame": "", "kind": "agent", "tree": tree, "children": 1}
        self.more: dict[str, Any] = plan if path.endswith("/plan") else {}
        for template, operations in self.document["paths"].items():
            pattern = re.sub(r"\{[^}]+\}", "[^/]+", template.replace("{model}", ".+"))
            if method.lower() in operations and re.fullmatch(pattern, path):
                for status, answer in operations[method.lower()]["responses"].items():
                    if status.startswith("2") and "application/json" in answer.get("content", {}):
                        return self.value(answer["content"]["application/json"]["schema"])
        return {}

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        if "$ref" in schema:
            return self.value(
                self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth + 1
            )
        for choice in ("anyOf", "oneOf", "allOf"):
            if choice in schema:
                return self.value(schema[choice][0], depth + 1)
        if "const" in schema or "enum" in schema:
            return schema.get("const", (schema.get("enum") or [None])[0])
        match schema.get("type"):
            case "object" if "properties" in schema:
                return {
                    name: self.STATES[name]
                    if name in self.STATES
                    and one.get("type") in (("string", None) if name == "next" else ("string",))
                    else self.value(one, depth + 1)
                    for name, one in schema["properties"].items()
                }
            case "object":
                more = schema.get("additionalProperties")
                one = self.value(more, depth + 1) if isinstance(more, dict) else HOSTILE
                return dict.fromkeys(("code", "message", HOSTILE), one) | self.more
            case "array":
                return [] if depth > 12 else [self.value(schema.get("items", {}), depth + 1)]
            case "integer" | "number":
                return 1
            case "boolean":
                return False  # a command asks on while there is `more`
            case "string" if schema.get("format") == "date-time":
                return "2026-01-01T00:00:00+00:00"
            case "string" if schema.get("format") == "uuid":
                return ID
        return HOSTILE


SENT = HOSTILE.replace("\ud800", "")
"""What can be sent as UTF-8."""
STORY: list[LiveEvent] = [
    RunBegan("x", RUN, "n", 1, SENT, kept={}),
    StepBegan("e1", "write", "write", "agent", 1, SENT, SENT),
    TokensCame("e1", "write", SENT + "\n" + SENT, 0, 2),
    StepEnded("e1", "write", "write", "agent", 1, SENT, "completed", SENT, 1, 9, 0.25, 1500),
    PeopleAsked(ID, "ship", SENT, [SENT]),
    Steered("pause", SENT, {}),
    RunEnded("completed", "", None, 0.25, None, 1500),
]


def _stream() -> bytes:
    return b"".join(frame(AGUI, RUN, str(n), PlacedEvent(str(n + 1), AT, one)) for n, one in enumerate(STORY))


@pytest.fixture(scope="module")
def hostile_api() -> Iterator[str]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            path = urlsplit(self.path).path
            if path.startswith("/v1/refuse/"):
                status, kind, data = 422, "application/problem+json", json.dumps(PROBLEM).encode()
            elif path.endswith("/stream"):
                status, kind, data = 200, "text/event-stream", _stream()
            else:
                status, kind = 200, "application/json"
                data = json.dumps(answers.to(self.command, path)).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


PROBLEM = {
    "code": HOSTILE,
    "detail": HOSTILE,
    "problems": [dict.fromkeys(("code", "pointer", "found", "expected", "fix"), HOSTILE)],
}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_command_lets_an_answer_steer_the_terminal(
    command: str, terminal: bool, hostile_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    (tmp_path / "FILE").write_text(json.dumps({"name": HOSTILE, "steps": {HOSTILE: {"kind": HOSTILE}}}))
    given = [str(tmp_path / one) if one in ("FILE", "NEW") else one for one in COMMANDS[command]]
    url = [] if command == "validate" else ["--url", hostile_api]
    done = CliRunner().invoke(app, [*command.split(), *given, *url])
    assert done.exception is None or isinstance(done.exception, SystemExit), (done.exception, done.exc_info)
    shown = done.output
    assert shown
    assert STEERING.findall(RICHS_OWN.sub("", shown)) == []


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"validate", "dry-run", "plan", "estimate"}))
def test_no_refusal_steers_the_terminal(command: str, hostile_api: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("{}")
    given = [str(tmp_path / one) if one in ("FILE", "NEW") else one for one in COMMANDS[command]]
    done = CliRunner().invoke(app, [*command.split(), *given, "--url", f"{hostile_api}/v1/refuse"])
    assert done.exit_code != 0 and "owned" in done.output
    assert STEERING.findall(RICHS_OWN.sub("", done.output)) == []


def test_a_fault_of_a_command_shows_its_type_and_where_the_rest_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError(f"secret {HOSTILE}")

    monkeypatch.setattr("cli.command.connect", broken)
    monkeypatch.setattr("sys.argv", ["facilitair", "cancel", "x"])
    monkeypatch.setenv("FACILITAIR_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "internal_error: found a fault of the platform itself (ValueError)." in said
    assert "secret" not in said
    log = tmp_path / "logs" / "cli.log"
    assert "secret" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
