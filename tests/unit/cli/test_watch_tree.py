"""The tree of a run on a terminal: the whole text that a person sees, from a sequence of events."""

from io import StringIO

from rich.console import Console

from cli.watch.events import WatchedRun
from cli.watch.picture import picture
from schema.live import (
    LiveEvent,
    PeopleAsked,
    PeopleDecided,
    RunBegan,
    RunEnded,
    Steered,
    StepBegan,
    StepEnded,
    TokensCame,
)

MODEL = "deepseek/deepseek-chat"


def seen_after(*events: LiveEvent, order: tuple[str, ...] = ()) -> WatchedRun:
    seen = WatchedRun("hello-1")
    seen.put_in_order(list(order))
    for at, event in enumerate([RunBegan("hello-1", "u", "hello", 1, "task"), *events]):
        seen.apply(event, 100.0 + at)
    return seen


def shown(seen: WatchedRun, now: float, width: int = 80, height: int = 40) -> list[str]:
    console = Console(file=StringIO(), record=True, width=width, color_system=None)
    console.print(picture(seen, now, width, height))
    return [line.rstrip() for line in console.export_text().splitlines()]


def began(execution: str, path: str, kind: str = "agent", attempt: int = 1) -> StepBegan:
    step = path.rpartition(".")[2]
    agent, model = ("coder", MODEL) if kind == "agent" else ("", "")
    return StepBegan(execution, path, step, kind, attempt, agent, model)


def ended(execution: str, path: str, status: str = "completed", **more: object) -> StepEnded:
    facts = {"kind": "agent", "attempt": 1, "agent": "coder", "model": MODEL} | more
    return StepEnded(execution, path, path.rpartition(".")[2], status=status, **facts)  # type: ignore[arg-type]


def came(execution: str, path: str, text: str, count: int = 1) -> TokensCame:
    return TokensCame(execution, path, text, 0, count)


def test_steps_that_are_done_under_way_and_to_come() -> None:
    seen = seen_after(
        began("e1", "write"),
        ended(
            "e1",
            "write",
            input_tokens=100,
            output_tokens=20,
            cost_usd=0.0012,
            latency_ms=1234,
            simulated=True,
        ),
        began("e2", "review"),
        came("e2", "review", "First line\nthe second ", 4),
        came("e2", "review", "goes on\n\x1b[2Jand on", 3),
        order=("write", "review", "merge"),
    )
    assert shown(seen, 107.5) == [
        "hello-1  running  7.5 s  ~127 tokens  $0.0012",
        "✓ write   coder  deepseek/deepseek-chat  120  1.2 s  $0.0012  simulated",
        "▸ review  coder  deepseek/deepseek-chat   ~7  4.5 s",
        "    the second goes on",
        "     [2Jand on",
        "· merge",
    ]


def test_a_superseded_attempt_takes_its_text_with_it() -> None:
    events: list[LiveEvent] = [
        began("e1", "write"),
        came("e1", "write", "all this is lost"),
        ended("e1", "write", "superseded"),
        began("e2", "write", attempt=2),
    ]
    assert shown(seen_after(*events), 106) == [
        "hello-1  running  6.0 s  0 tokens  $0.0000",
        "▸ write  coder  deepseek/deepseek-chat  2.0 s  attempt 2",
    ]
    events += [
        came("e2", "write", "anew"),
        ended("e2", "write", "failed", attempt=2, error_code="provider_failed"),
        RunEnded("failed", "", "provider_failed", 0.0, None, 7_000),
    ]
    assert shown(seen_after(*events), 999) == [
        "hello-1  failed  7.0 s  0 tokens  $0.0000",
        "✗ write  coder  deepseek/deepseek-chat  2.0 s  attempt 2, provider_failed",
    ]


def test_maps_and_loops_fold_what_is_done() -> None:
    seen = seen_after(
        began("m", "per_file", "map"),
        *(began(f"r{n}", f"per_file[{n}].review") for n in range(9)),
        *(
            ended(f"r{n}", f"per_file[{n}].review", output_tokens=10, cost_usd=0.001, latency_ms=9)
            for n in range(3)
        ),
        ended("r3", "per_file[3].review", "failed", error_code="it_broke"),
        began("l", "per_file[0].improve", "loop"),
        began("i", "per_file[0].improve[2].fix"),
        came("i", "per_file[0].improve[2].fix", "patching"),
        order=("per_file", "merge"),
    )
    assert shown(seen, 120) == [
        "hello-1  running  20.0 s  ~31 tokens  $0.0030",
        "▸ per_file ×9           3 done, 6 under way, 1 failed  ~31  19.0 s  $0.0030",
        "▸   [0].improve[2].fix  coder  deepseek/deepseek-chat   ~1   4.0 s",
        "      patching",
        "▸   [4].review          coder  deepseek/deepseek-chat       14.0 s",
        "▸   [5].review          coder  deepseek/deepseek-chat       13.0 s",
        "▸   [6].review          coder  deepseek/deepseek-chat       12.0 s",
        "    … and 2 more under way",
        "· merge",
    ]


def test_questions_say_which_command_answers_them() -> None:
    events: list[LiveEvent] = [
        began("h", "ship", "human"),
        PeopleAsked("t-1", "ship", "Ship it?", ["user:ada", "group:ops"]),
        Steered("pause", "user:bob", {}),
    ]
    seen = seen_after(*events)
    seen.actions["t-1"] = ["approve", "reject"]
    assert shown(seen, 105) == [
        "hello-1  paused by user:bob  5.0 s  0 tokens  $0.0000",
        "▸ ship  human  4.0 s",
        "? Ship it?  asks user:ada, group:ops",
        "  facilitair decide hello-1 approve|reject",
    ]
    events += [
        PeopleDecided("t-1", "ship", "user:ada", "approve", closed=True),
        Steered("resume", "user:bob", {}),
        ended("h", "ship", kind="human", agent="", model="", latency_ms=5_000),
        RunEnded("completed", "", None, 0.0, None, 5_000),
    ]
    assert shown(seen_after(*events), 999) == [
        "hello-1  completed  5.0 s  0 tokens  $0.0000",
        "✓ ship  human  5.0 s",
    ]


def test_it_is_never_wider_or_higher_than_the_terminal() -> None:
    events: list[LiveEvent] = []
    for n in range(60):
        path = f"a_step_with_quite_a_long_name_{n}"
        events += [began(f"e{n}", path), came(f"e{n}", path, "x" * 300)]
        if n < 50:
            events.append(ended(f"e{n}", path, output_tokens=1, latency_ms=1, simulated=True))
    events += [began("w", "wide"), came("w", "wide", "宽" * 200)]
    seen = seen_after(*events, order=tuple(f"later_{n}" for n in range(20)))
    for width in (40, 60, 80, 200):
        lines = shown(seen, 999, width, 20)
        assert len(lines) <= 20
        assert max(map(len, lines)) <= width
        assert lines[1] == "  20 pending, 50 completed"
    assert len(shown(seen, 999, 80, 200)) == 1 + 20 + 50 + 11 * 2
