"""`facilitair plan` and `facilitair dry-run`: of files on this machine, and of what is stored."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app

DOCUMENT = {
    "name": "triage",
    "agents": {"reader": {"role": "reviewer"}},
    "steps": {
        "read": {"kind": "agent", "agent": "reader", "prompt": "${input.text}"},
        "way": {
            "kind": "switch",
            "cases": [{"when": "steps.read.output == 'urgent'", "then": "now"}],
            "else": "later",
        },
        "each": {
            "kind": "map",
            "over": "[1, 2]",
            "max_items": 2,
            "needs": ["way:now"],
            "body": {"steps": {"twice": {"kind": "transform", "value": "${item * 2}"}}},
        },
    },
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "triage.json"
    path.write_text(json.dumps(DOCUMENT))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def dry_run(file: str, mocks: Any, *arguments: str) -> Result:
    path = Path(file).with_name("mocks.json")
    path.write_text(mocks if isinstance(mocks, str) else json.dumps(mocks))
    return run("dry-run", file, "-i", "text=Hello", "--mocks", str(path), *arguments)


def test_a_file_is_rehearsed_on_this_machine(file: str) -> None:
    done = dry_run(file, {"read": [{"output": "urgent"}]})
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["read", "agent", "completed", "Hello", "urgent", "mock"] in rows
    assert ["each[1].twice", "transform", "completed", "4"] in rows
    assert "completed; 7 steps, 1 model calls" in done.stdout
    skipped = dry_run(file, {}, "--json")
    found = json.loads(skipped.stdout)
    assert [one["status"] for one in found["trace"]] == ["completed", "completed", "skipped"]
    assert (found["defaulted"], found["never_reached"]) == (["read"], ["twice"])


def test_a_dry_run_that_fails_says_why(file: str) -> None:
    done = dry_run(file, {"read": [{"error": {"code": "provider_auth", "message": "no key"}}]})
    assert done.exit_code == 1
    assert "provider_auth: no key" in done.stdout
    assert "never reached: way, each, twice" in done.stderr


@pytest.mark.parametrize(
    ("mocks", "expected"),
    [
        ("{", "found no JSON"),
        ({"read": []}, "/read"),
        ({"reed": [{"output": "x"}]}, "Did you mean 'read'?"),
        ({"way": [{"output": "now"}]}, "answers for a step of kind switch"),
    ],
)
def test_mocks_that_do_not_fit_are_refused(file: str, mocks: Any, expected: str) -> None:
    done = dry_run(file, mocks)
    assert done.exit_code == 2
    assert "mocks_invalid" in done.stderr and expected in done.stderr


def test_a_wrong_file_is_refused_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text('{"name": "x",\n "steps": {"a": {"kind": "nonsense"}}}')
    for command in ("plan", "dry-run"):
        done = run(command, str(path))
        assert done.exit_code == 2
        assert "line 2, /steps/a/kind" in done.stderr


def test_the_plan_of_a_file(file: str) -> None:
    done = run("plan", file)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "triage",
        "├── read  agent reader  an activity of its own",
        "├── way  switch  after read  shares a local activity with its neighbours",
        "└── each  for each of [1, 2], 20 at a time  after way:now  shares an activity with its neighbours",
        "    └── twice  transform  shares a local activity with its neighbours",
    ]
    assert lines[5].startswith("At most 5 executions, ")
    drawn = run("plan", file, "--mermaid").stdout
    assert drawn.startswith("flowchart TD\n") and '  s_way -->|"now"| s_each\n' in drawn
    found = json.loads(run("plan", file, "--json").stdout)
    assert found["mermaid"] + "\n" == drawn
    assert [node["id"] for node in found["nodes"]] == ["read", "way", "each", "twice"]


def test_what_is_stored_is_asked_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    nothing: dict[str, Any] = {
        "status": "completed",
        "output": "fine",
        "error": None,
        "trace": [],
        "executed": 0,
        "model_calls": 0,
        "defaulted": [],
        "never_reached": [],
    }

    class Api:
        def post(self, path: str, value: Any) -> Any:
            asked.append((path, value))
            return nothing if path.endswith("dry-run") else {"mermaid": "flowchart TD"}

    monkeypatch.setattr("cli.command.connect", lambda url, data: Api())
    assert "fine" in run("dry-run", "triage@2", "-i", "n:=1").stdout
    assert run("plan", "triage", "--mermaid").stdout == "flowchart TD\n"
    assert asked == [
        ("/definitions/dry-run", {"name": "triage@2", "input": {"n": 1}, "mocks": {}}),
        ("/definitions/plan", {"name": "triage"}),
    ]
