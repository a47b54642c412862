"""Commands against a stub of the API: what they print, and how they exit."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from cli.main import app

_STARTED = "2026-01-01T00:00:00+00:00"
_RUN = {
    "id": "hello-1",
    "run_id": "u",
    "name": "hello",
    "version": 1,
    "task": "",
    "status": "completed",
    "sub_state": "",
    "error": None,
    "quality": None,
    "started_at": _STARTED,
    "completed_at": _STARTED,
    "seconds": 1.5,
    "steps_done": 1,
    "tokens": 10,
    "cost_usd": 0.25,
    "trace_id": "t",
    "output": "hi",
    "steps": [
        {
            "id": "e1",
            "step": "write",
            "attempt": 1,
            "kind": "agent",
            "agent": "coder",
            "model": "m/x",
            "requested_model": "m/x",
            "status": "completed",
            "tokens": 10,
            "cost_usd": 0.25,
            "seconds": 1.5,
            "simulated": True,
            "error": None,
        }
    ],
}
_PLAN = {"steps": [{"id": "write"}]}


@dataclass
class Stub:
    """Answers by path; keeps what was asked."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    queued: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    """Path → answers that go before the one of `answers`."""

    def last(self) -> tuple[str, str, Any]:
        return self.asked[-1]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--url", self.url])


def test_a_platform_that_does_not_run_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    for more in ([], ["--json"]):
        assert CliRunner().invoke(app, ["status", "--data", str(tmp_path), *more]).exit_code == 3


@pytest.mark.parametrize(("status", "code"), [("registered", 0), ("refused", 1), ("failed", 1)])
def test_a_training_that_comes_to_nothing_fails_the_command(stub: "Stub", status: str, code: int) -> None:
    done = {"id": "1", "status": status, "reason": "", "curve": []}
    stub.answers |= {"/router/trainings": (202, {"id": "1"}), "/router/trainings/1": (200, done)}
    assert stub.run("router", "train", "--watch").exit_code == code


@pytest.fixture
def stub() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/v1")
            state.queries.append(dict(parse_qsl(self.path.partition("?")[2])))
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            is_json = "yaml" not in (self.headers.get("content-type") or "")
            state.asked.append((self.command, path, json.loads(body) if body and is_json else None))
            status, value = state.answers.get(path, (404, {"code": "definition_unknown", "detail": "none"}))
            if state.queued.get(path):
                status, value = state.queued[path].pop(0)
            data = b"" if status == 204 else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def _problem(status: int, code: str, **more: Any) -> tuple[int, Any]:
    return status, {"code": code, "detail": f"about {code}", **more}


def _started(stub: Stub, **run: Any) -> None:
    stub.answers["/collaborations"] = 202, {"id": "hello-1", "status": "running", "links": {}}
    stub.answers["/collaborations/hello-1"] = 200, _RUN | run
    stub.answers["/definitions/hello/plan"] = 200, _PLAN


def test_run_ends_with_the_answer_and_what_was_simulated(stub: Stub) -> None:
    _started(stub)
    result = stub.run("run", "hello", "--input", "task=x", "--id", "hello-1")
    assert result.exit_code == 0
    assert stub.asked[0] == (
        "POST",
        "/collaborations",
        {"definition": "hello", "input": {"task": "x"}, "id": "hello-1"},
    )
    assert result.stdout.startswith("hi\n")
    assert "simulated: write." in result.stdout
    assert "write: completed" in result.stderr


def test_run_json_is_one_object_alone(stub: Stub) -> None:
    _started(stub)
    result = stub.run("run", "hello", "--json")
    found = json.loads(result.stdout)
    assert found["collaboration_id"] == "hello-1"
    assert found["output"] == "hi"
    assert found["steps"][0]["simulated"] is True


def test_run_without_waiting_prints_the_id(stub: Stub) -> None:
    _started(stub)
    assert stub.run("run", "hello", "--no-wait").stdout == "hello-1\n"


def test_a_failed_run_is_a_failure(stub: Stub) -> None:
    _started(stub, status="failed", error={"code": "tool_failed", "message": "it broke"})
    result = stub.run("watch", "hello-1")
    assert result.exit_code == 1
    assert "tool_failed: it broke" in result.stdout


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        (_problem(422, "input_invalid"), 2),
        (_problem(404, "definition_unknown"), 2),
        (_problem(409, "collaboration_exists"), 2),
        (_problem(503, "temporal_unavailable"), 1),
        (_problem(500, "internal_error"), 1),
    ],
)
def test_exit_codes_tell_refusal_and_failure_apart(
    stub: Stub, answer: tuple[int, Any], exit_code: int
) -> None:
    stub.answers["/collaborations"] = answer
    result = stub.run("run", "hello")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert f"{answer[1]['code']}: about" in result.stderr
    as_json = stub.run("run", "hello", "--json")
    assert json.loads(as_json.stdout)["error"]["code"] == answer[1]["code"]
    assert as_json.stderr == ""


def test_nothing_running_is_said_with_the_cure(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--data", str(tmp_path)], env={"FACILITAIR_URL": ""})
    assert result.exit_code == 3
    assert "facilitair up" in result.stderr


def test_an_unreachable_address_is_nothing_running() -> None:
    result = CliRunner().invoke(app, ["list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "api_unreachable" in result.stderr


def test_apply_shows_problems_with_their_lines(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{\n "name": "x",\n "steps": {"a": {"kind": "nope"}}\n}')
    wrong = {
        "code": "kind_unknown",
        "pointer": "/steps/a/kind",
        "found": "'nope'",
        "expected": "agent",
        "fix": "Correct it.",
        "message": "",
    }
    stub.answers["/definitions"] = _problem(422, "definition_invalid", problems=[wrong])
    result = stub.run("apply", str(file))
    assert result.exit_code == 2
    assert "kind_unknown  line 3, /steps/a/kind" in result.stderr
    assert "Correct it." in result.stderr


def test_apply_takes_folders_and_puts_first_what_others_run(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no definition")
    (tmp_path / "a-parent.json").write_text('{"name": "a-parent"}')
    (tmp_path / "b-child.yaml").write_text("name: b-child")
    (tmp_path / "empty").mkdir()
    unknown = {
        "code": "collaboration_unknown",
        "pointer": "/steps/x/ref",
        "found": "'b-child'",
        "expected": "a stored definition",
        "fix": "Upload it first.",
        "message": "",
    }
    stored = {"name": "x", "version": 1, "created": True, "inferred": {}, "warnings": []}
    stub.queued["/definitions"] = [
        _problem(422, "definition_invalid", problems=[unknown]),
        (201, stored),
        (201, stored),
    ]
    result = stub.run("apply", str(tmp_path), "--json")
    assert [one["name"] for one in json.loads(result.stdout)["items"]] == ["x", "x"]
    assert len(stub.asked) == 3
    stub.queued["/definitions"] = [_problem(422, "definition_invalid", problems=[unknown])] * 2
    result = stub.run("apply", str(tmp_path))
    assert (result.exit_code, "a-parent.json" in result.stderr) == (2, True)
    result = stub.run("apply", str(tmp_path / "empty"))
    assert (result.exit_code, "file_unreadable" in result.stderr) == (2, True)


def test_runs_lists_the_runs_of_all_definitions(stub: Stub) -> None:
    stub.answers["/collaborations"] = 200, {"items": [_RUN], "next": None}
    assert stub.run("runs").stdout.splitlines()[1].split()[:3] == ["hello-1", "hello@1", "completed"]
    assert stub.run("runs", "hello", "--status", "failed", "--search", "x").exit_code == 0
    assert stub.queries[-1] == {"name": "hello", "status": "failed", "q": "x", "limit": "50"}


def test_validate_needs_no_server(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.json"
    good.write_text("name: good\nsteps:\n  a: {kind: transform, value: 1}\n")
    bad.write_text('{"name": "bad"}')
    assert CliRunner().invoke(app, ["validate", str(good)]).stdout == "good  valid\n"
    result = CliRunner().invoke(app, ["validate", str(bad), "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["problems"][0]["code"] == "field_missing"


def test_a_missing_file_is_refused() -> None:
    result = CliRunner().invoke(app, ["validate", "/no/such/file.json"])
    assert result.exit_code == 2
    assert "file_unreadable" in result.stderr


def test_graph_prints_rows(stub: Stub) -> None:
    stub.answers["/graph/query"] = 200, {"columns": ["model", "n"], "rows": [["m", 3]], "truncated": False}
    result = stub.run("graph", "issues-by-pair")
    assert stub.asked[0][2] == {"cypher": "issues-by-pair", "parameters": {}}
    assert result.stdout.split() == ["model", "n", "m", "3"]


def test_trace_takes_its_sum_from_the_books(stub: Stub) -> None:
    span = {
        "trace_id": "t",
        "span_id": "s",
        "parent_id": "gone",
        "name": "invoke_workflow hello",
        "kind": "internal",
        "service": "worker",
        "started_at": _STARTED,
        "ended_at": _STARTED,
        "seconds": 1.5,
        "status": "ok",
        "attributes": {},
    }
    stub.answers["/collaborations/hello-1/trace"] = 200, {"trace_id": "t", "spans": [span]}
    stub.answers["/collaborations/hello-1"] = 200, _RUN
    result = stub.run("trace", "hello-1")
    assert "invoke_workflow hello  1.50 s" in result.stdout
    assert "coder · write" in result.stdout
    assert "span lost with its worker" in result.stdout
    assert "total: 1 steps, 1.5 s, 10 tokens, $0.250000" in result.stdout


_VERSION = {
    "name": "x",
    "version": 2,
    "sha256": "ab" * 32,
    "created_at": _STARTED,
    "created_by": "me",
    "pins": {},
    "deprecated": None,
}


def test_versions_say_what_is_meant(stub: Stub) -> None:
    old = _VERSION | {"version": 1, "deprecated": "It is slow."}
    stub.answers["/definitions/x/versions"] = 200, {"items": [_VERSION, old], "next": None}
    aliases = [{"name": "x", "alias": "stable", "version": 2}, {"name": "x", "alias": "old", "version": 1}]
    stub.answers["/definitions/x/aliases"] = 200, {"items": aliases, "meant": 2}
    lines = stub.run("versions", "x").stdout.splitlines()
    assert lines[1].split()[0] == "2" and lines[1].rstrip().endswith("x, @stable")
    assert lines[2].split()[0] == "1" and lines[2].rstrip().endswith("@old deprecated: It is slow.")
    found = json.loads(stub.run("versions", "x", "--json").stdout)
    assert (found["meant"], found["aliases"], len(found["versions"])) == (2, aliases, 2)


def test_a_difference_is_told_by_step_and_field(stub: Stub) -> None:
    change = {"op": "replace", "path": "/steps/a/value", "from": 1, "to": {"v": 2}}
    stub.answers["/definitions/x/diff"] = (
        200,
        {
            "from": 1,
            "to": 2,
            "agents": [{"id": "m", "change": "removed", "kind": "agent", "fields": []}],
            "steps": [{"id": "a", "change": "changed", "kind": "transform", "fields": [change]}],
            "input": [{"op": "add", "path": "/input/required", "from": None, "to": ["t"]}],
            "rest": [],
            "pins": [],
            "breaking": [{"path": "/input/required", "reason": "the field 't' must be given"}],
        },
    )
    assert stub.run("diff", "x", "1", "2").stdout.splitlines() == [
        "x@1 → x@2",
        "~ step a (transform)",
        '    ~ /steps/a/value  1 → {"v": 2}',
        "- agent m",
        '+ /input/required  ["t"]',
        "! breaking: the field 't' must be given (/input/required)",
    ]


def test_a_file_is_compared_with_the_newest_version(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"name": "x", "steps": {"a": {"kind": "transform", "value": 2}}}')
    stored = {"name": "x", "steps": {"a": {"kind": "transform", "value": 1}}}
    stub.answers["/definitions/x/versions"] = 200, {"items": [_VERSION], "next": "2"}
    stub.answers["/definitions/x"] = 200, _VERSION | {"definition": stored}
    assert stub.run("diff", str(file)).stdout.splitlines() == [
        "x@2 → x.json",
        "~ step a (transform)",
        "    ~ /steps/a/value  1 → 2",
    ]
    found = json.loads(stub.run("diff", str(file), "--json").stdout)
    assert (found["from"], found["to"]) == (2, None)
    assert found["changes"] == [{"op": "replace", "path": "/steps/a/value", "from": 1, "to": 2}]
    stub.answers["/definitions/x"] = 200, _VERSION | {"definition": json.loads(file.read_text())}
    assert stub.run("diff", str(file)).stdout.splitlines() == ["x@2 → x.json", "no difference"]
    file.write_text('{"name": "x"}')
    result = stub.run("diff", str(file))
    assert result.exit_code == 2
    assert "field_missing" in result.stderr


def test_versions_are_named_and_taken_back(stub: Stub) -> None:
    stub.answers["/definitions/x/aliases/stable"] = 200, {"warnings": ["x@2 is deprecated: Old."]}
    result = stub.run("alias", "x@stable", "2")
    assert (result.stdout, result.stderr) == ("x@stable is x@2\n", "! x@2 is deprecated: Old.\n")
    assert stub.last() == ("PUT", "/definitions/x/aliases/stable", {"version": 2})
    stub.answers["/definitions/x/aliases/stable"] = 204, None
    assert stub.run("alias", "x@stable", "--remove").stdout == "x@stable removed\n"
    assert stub.last()[0] == "DELETE"
    assert stub.run("alias", "x@stable").exit_code == 2
    assert stub.run("alias", "x", "2").exit_code == 2

    stub.answers["/definitions/x/rollback"] = 200, {"name": "x", "from": 3, "to": 2}
    assert stub.run("rollback", "x").stdout == "x@2  instead of x@3\n"
    assert stub.last()[2] == {"version": None}
    stub.run("rollback", "x", "1")
    assert stub.last()[2] == {"version": 1}

    stub.answers["/definitions/x/versions/2/deprecate"] = 200, _VERSION
    assert stub.run("deprecate", "x", "2", "--reason", "Old.").stdout == "x@2 is deprecated\n"
    assert stub.last()[2] == {"reason": "Old."}
    assert stub.run("deprecate", "x", "2", "--undo").stdout == "x@2 can be used again\n"
    assert stub.last()[0] == "DELETE"
    assert stub.run("deprecate", "x", "2").exit_code == 2


def test_a_run_of_what_is_deprecated_is_told_so(stub: Stub) -> None:
    accepted = {"id": "x-1", "status": "running", "links": {}, "warnings": ["x@1 is deprecated: Old."]}
    stub.answers["/collaborations"] = 202, accepted
    result = stub.run("run", "x@1", "--no-wait")
    assert result.stdout == "x-1\n"
    assert result.stderr.startswith("! x@1 is deprecated: Old.\n")


def test_schedules_are_made_and_listed(stub: Stub) -> None:
    made = {
        "id": "x-1",
        "name": "x@stable",
        "cron": "0 9 * * 1-5",
        "every": None,
        "timezone": "Europe/Berlin",
        "paused": False,
        "next": ["2026-01-05T08:00:00Z", "2026-07-06T07:00:00Z"],
        "recent": [{"id": "x-1-then", "at": _STARTED}],
        "warnings": [],
    }
    stub.answers["/schedules"] = 201, made
    result = stub.run("schedule", "add", "x@stable", "--cron", "0 9 * * 1-5", "-i", "task=t", "--paused")
    assert result.stdout == (
        "x-1  x@stable, 0 9 * * 1-5 (Europe/Berlin); next: Mon 2026-01-05 09:00+01:00, "
        "Mon 2026-07-06 09:00+02:00\n"
    )
    assert stub.last()[2] == {
        "name": "x@stable",
        "cron": "0 9 * * 1-5",
        "every": None,
        "timezone": "UTC",
        "input": {"task": "t"},
        "overlap": "skip",
        "catch_up": "1h",
        "paused": True,
    }
    stub.answers["/schedules"] = 200, {"items": [made | {"paused": True}], "next": None}
    assert "paused  x-1-then" in stub.run("schedule", "list").stdout
    for action in ("pause", "resume", "run"):
        stub.answers[f"/schedules/x-1/{action}"] = 200, made
        assert stub.run("schedule", action, "x-1").exit_code == 0
        assert stub.last()[:2] == ("POST", f"/schedules/x-1/{action}")
    stub.answers["/schedules/x-1"] = 204, None
    assert stub.run("schedule", "remove", "x-1").stdout == "x-1 removed\n"


def test_a_webhooks_address_is_all_that_stdout_holds(stub: Stub) -> None:
    url = "http://127.0.0.1:8700/hooks/" + "t" * 200
    made = {"id": "w", "name": "x", "input": "${input}", "created_at": _STARTED, "created_by": None}
    stub.answers["/webhooks"] = 201, made | {"url": url}
    result = stub.run("webhook", "add", "x", "-i", "task=${input.title}")
    assert result.stdout == url + "\n"
    assert "not shown again" in result.stderr
    assert stub.last()[2] == {"name": "x", "input": {"task": "${input.title}"}}
    stub.run("webhook", "add", "x")
    assert stub.last()[2] == {"name": "x"}
    stub.answers["/webhooks"] = 200, {"items": [made | {"last_called_at": None}], "next": None}
    assert stub.run("webhook", "list").stdout.splitlines()[1].split() == ["w", "x", _STARTED[:19], "never"]
    stub.answers["/webhooks/w"] = 204, None
    assert stub.run("webhook", "remove", "w").stdout == "w removed\n"


def test_help_comes_quickly() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "demo" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"httpx", "pydantic", "sqlalchemy", "temporalio", "fastapi", "torch", "litellm", "yaml"}
    assert loaded & heavy == set()
    # Generous: the suite shares its cores. Half a second is what a person gets.
    assert time.monotonic() - began < 5


def test_a_fork_names_what_runs_again_and_what_is_another(stub: Stub, tmp_path: Path) -> None:
    made = {
        "id": "hello-2",
        "status": "running",
        "links": {},
        "warnings": [],
        "definition": "hello@3",
        "kept": ["plan"],
        "resumed": [],
        "again": ["code", "test"],
    }
    stub.answers["/collaborations/hello-1"] = 200, _RUN | {"input": {"task": "old", "n": 1}}
    stub.answers["/collaborations/hello-1/fork"] = 202, made
    (tmp_path / "plan.json").write_text('["a"]')
    result = stub.run(
        "fork",
        "hello-1",
        "--from",
        "code",
        "--from",
        "test",
        "--input",
        "task=new",
        "--definition",
        "3",
        "--set",
        f"plan=@{tmp_path / 'plan.json'}",
        "--set",
        'title="t"',
        "--id",
        "hello-2",
        "--no-wait",
    )
    assert (result.stdout, result.stderr) == ("hello-2\n", "kept: plan\nagain: code, test\n")
    assert stub.last() == (
        "POST",
        "/collaborations/hello-1/fork",
        {
            "from": ["code", "test"],
            "outputs": {"plan": ["a"], "title": "t"},
            "input": {"task": "new", "n": 1},
            "definition": 3,
            "id": "hello-2",
        },
    )
    asked = len(stub.asked)
    for wrong in ("plan", "plan=text", "=1"):
        assert stub.run("fork", "hello-1", "--from", "code", "--set", wrong).exit_code == 2
    assert len(stub.asked) == asked

    stub.answers["/collaborations/hello-1/rerun"] = 202, made
    assert stub.run("rerun", "hello-1", "--no-wait").stdout == "hello-2\n"
    assert stub.last() == ("POST", "/collaborations/hello-1/rerun", {})


def test_a_run_is_shown_with_its_relatives(stub: Stub) -> None:
    def relative(id: str, path: str | None = None) -> dict[str, Any]:
        return {"id": id, "run_id": "u", "name": "x", "version": 2, "status": "completed", "path": path}

    lineage = {
        "forked_from": relative("hello-0"),
        "forked_at": ["write"],
        "parent": relative("around"),
        "children": [relative("hello-1~sub", "sub")],
        "forks": [relative("hello-2")],
    }
    stub.answers["/collaborations/hello-1"] = 200, _RUN | {"lineage": lineage}
    stub.answers["/definitions/hello/plan"] = 200, _PLAN
    shown = stub.run("show", "hello-1").stdout
    assert shown.startswith("hi\n")
    assert shown.splitlines()[-4:] == [
        "forked from  hello-0  x@2  completed  ran again: write",
        "part of  around  x@2  completed",
        "child  hello-1~sub  x@2  completed  sub",
        "fork  hello-2  x@2  completed",
    ]
    assert json.loads(stub.run("show", "hello-1", "--json").stdout)["lineage"] == lineage


# -- what definitions may name ------------------------------------------------------------------------

_ROLE = {
    "name": "coder",
    "origin": "yours_instead",
    "model": "m/x",
    "system": "s",
    "relationship": "IMPLEMENTED",
    "description": "",
    "skills": ["debugging"],
    "set_by": "local",
    "set_at": _STARTED,
}
_PROVIDER = {
    "name": "acme",
    "origin": "yours",
    "kind": "ollama",
    "base_url": None,
    "key_ref": "a",
    "requests_per_minute": None,
    "tokens_per_minute": 9000,
}


def test_roles_and_providers_are_listed(stub: Stub) -> None:
    stub.answers["/catalogue"] = 200, {"roles": [_ROLE], "providers": [_PROVIDER], "skills": []}
    shown = "coder m/x IMPLEMENTED debugging yours instead of the built-in"
    assert " ".join(stub.run("roles").stdout.splitlines()[1].split()) == shown
    assert stub.run("providers").stdout.splitlines()[1].split() == ["acme", "ollama", "a", "9000", "yours"]
    assert json.loads(stub.run("roles", "--json").stdout) == [_ROLE]


def test_setting_a_role_keeps_what_is_not_given(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "system.md").write_text("From a file.")
    stub.answers |= {"/catalogue": (200, {"roles": [_ROLE]}), "/roles/coder": (200, _ROLE)}
    result = stub.run("roles", "set", "coder", "--system", f"@{tmp_path / 'system.md'}", "--skill", "")
    assert result.stdout == "coder  yours instead of the built-in\n"
    kept = {"model": "m/x", "relationship": "IMPLEMENTED", "description": ""}
    assert stub.last() == ("PUT", "/roles/coder", kept | {"system": "From a file.", "skills": []})
    assert stub.run("roles", "set", "coder").exit_code == 2


def test_a_new_skill_is_sent_as_it_is_given(stub: Stub) -> None:
    skill = {"name": "style", "origin": "yours"}
    stub.answers |= {"/catalogue": (200, {"skills": []}), "/skills/style": (200, skill)}
    stub.run("skills", "set", "style", "--description", "d", "--instructions", "i", "--tool", "text.diff")
    assert stub.last()[2] == {"instructions": "i", "tools": ["text.diff"], "description": "d"}


def test_a_removal_warns_of_what_still_names_it(stub: Stub) -> None:
    gone = {"name": "x", "built_in": False, "used_by": ["audit@2"], "more": True, "roles": ["critic"]}
    stub.answers["/skills/x"] = 200, gone
    result = stub.run("skills", "remove", "x")
    assert result.stdout == "x removed\n"
    assert "! audit@2, the role critic and others still name it" in result.stderr
    stub.answers["/roles/coder"] = 200, gone | {"built_in": True}
    result = stub.run("roles", "remove", "coder")
    assert (result.stdout, result.stderr) == ("coder removed, the built-in one holds again\n", "")


def test_what_this_machine_does_not_know_a_tenant_may(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    agent = {"role": "critic", "skills": ["debuging"], "fallback": ["acme/x", "gpt-4"]}
    steps = {"ask": {"kind": "agent", "agent": "a", "prompt": "p"}}
    file.write_text(json.dumps({"name": "x", "agents": {"a": agent}, "steps": steps}))
    told = json.loads(CliRunner().invoke(app, ["validate", str(file), "--json"]).stdout)["error"]["problems"]
    assert [(one["code"], "your tenant may know it" in one["fix"]) for one in told] == [
        ("model_unknown", True),
        ("model_unknown", False),
        ("role_unknown", True),
        ("skill_unknown", True),
    ]


def _leaves(command: Any, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _leaves(inner, *above, name)
    if not hasattr(command, "commands"):
        yield above, command


_COMMANDS = dict(_leaves(get_command(app)))


def _with(command: Any, option: Any) -> list[str]:
    """Arguments of a command, with bytes that are not UTF-8 as the option."""
    given: list[str] = []
    for one in command.params:
        if one is option or one.required:
            value = "\udcff" if one is option else "1"
            given += [value] if one.param_type_name == "argument" else [one.opts[0], value]
    return given


@pytest.mark.parametrize("name", _COMMANDS, ids=" ".join)
def test_no_command_takes_what_json_and_utf_8_cannot_hold(name: tuple[str, ...]) -> None:
    """Before anything is asked or read, with exit code 2."""
    for option in _COMMANDS[name].params:
        if option.name in ("url", "data") or getattr(option, "is_flag", False):
            continue
        result = CliRunner().invoke(app, [*name, *_with(_COMMANDS[name], option)])
        told = (option.name, result.output, repr(result.exception))
        assert (result.exit_code, type(result.exception)) == (2, SystemExit), told


def test_forget_asks_until_all_is_forgotten(stub: Stub) -> None:
    found = {"runs": 3, "running": 1, "trainings": 1, "prompt_versions": 0, "more": False}
    stub.answers["/simulated/forget"] = (200, found)
    result = stub.run("forget", "--simulated", "--dry-run")
    assert stub.last() == ("POST", "/simulated/forget", {"dry_run": True})
    assert "to forget: 3 simulated runs, 1 trainings, 0 prompt versions" in result.stdout
    assert "1 simulated runs go on" in result.stderr
    assert stub.run("forget").exit_code == 2
