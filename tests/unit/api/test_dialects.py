"""What clients are sent of a run: every kind of event in every dialect, and ids that survive every cut."""

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from api.dialects.agui import AGUI
from api.dialects.frames import CatchUp, Cursor, Dialect, Mark, as_sse, frame, mark_of, numbered, parse
from api.dialects.seed import SEED
from api.dialects.socket import SOCKET
from api.dialects.vercel import VERCEL
from schema.errors import Refused
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
    ToolsCalled,
    ToolsReturned,
)
from tests.support.agui import checked, verify

RUN = "0f6f2b0a-5c55-4c7e-9d0c-0b1f6f0c7a11"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def _id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def began(number: int, path: str, attempt: int = 1, kind: str = "agent") -> StepBegan:
    return StepBegan(_id(number), path, path, kind, attempt, "coder" if kind == "agent" else "", "m")


def ended(of: StepBegan, status: str = "completed") -> StepEnded:
    return StepEnded(
        of.execution,
        of.path,
        of.step,
        of.kind,
        of.attempt,
        of.agent,
        status,
        "m",
        1,
        2,
        0.5,
        7,
        "provider_timeout" if status == "failed" else None,
        True,
    )


def said(of: StepBegan, text: str, first: int = 0) -> TokensCame:
    return TokensCame(of.execution, of.path, text, first, 1, of.agent)


A, B, B2, T = began(1, "a"), began(2, "b/~x"), began(3, "b/~x", 2), began(4, "t", kind="tool")
CALLED = ToolsCalled(
    A.execution,
    "a~tools1",
    "coder",
    [
        {"id": "a~tools1.0", "name": "text_diff", "arguments": '{"before":"x","after":"y"}'},
        {"id": "a~tools1.1", "name": "http", "arguments": "no JSON"},
    ],
)
RETURNED = ToolsReturned(
    "a~tools1",
    [
        {"id": "a~tools1.0", "content": '{"added":1}', "error": None},
        {"id": "a~tools1.1", "content": "refused", "error": "tool_args_wrong"},
    ],
)
STORY: list[LiveEvent] = [
    RunBegan("w-1", RUN, "demo", 3, "do \u2028 it\n", {"old": "completed"}, _id(9)),
    A,
    B,
    said(A, "Hé"),
    said(B, "line\r\n\n"),
    T,
    ended(T),
    said(A, "🙂", 1),
    said(A, ""),
    ended(B, "superseded"),
    B2,
    Steered("pause", "user:ada", {"x": 1}),
    PeopleAsked("task", "ask", "Ship?", ["user:ada"]),
    PeopleDecided("task", "ask", "user:ada", "approve", True),
    ended(B2, "failed"),
    ended(A),
    CALLED,
    RETURNED,
    StepEnded("", "s", "s", "", 0, "", "skipped"),
    StepEnded("", "b/~x", "b", "", 0, "", "caught", error_code="provider_timeout"),
    RunEnded("completed", "", None, 1.5, 0.9, 1000, output={"sum": 3}),
]
LIVES = [PlacedEvent(f"{number:x}.{number:x}", AT, event) for number, event in enumerate(STORY, 1)]


def sent(dialect: Dialect, lives: list[PlacedEvent]) -> bytes:
    before = ""
    parts = []
    for live in lives:
        parts.append(frame(dialect, RUN, before, live))
        before = live.place
    return b"".join(parts)


def blocks_of(stream: bytes) -> list[dict[str, str]]:
    """Server-sent events, as a browser reads them."""
    return [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in stream.decode().split("\n\n")
        if block
    ]


def fresh() -> list[PlacedEvent]:
    return [PlacedEvent(one.place, one.at, one.event) for one in LIVES]


def test_every_event_is_one_of_agui_and_in_its_order() -> None:
    events = [checked(block["data"]) for block in blocks_of(sent(AGUI, fresh()))]
    messages = verify(events)
    assert messages == {A.execution: "Hé🙂", B.execution: "line\r\n\n", B2.execution: ""}
    assert events[0] == {
        "type": "RUN_STARTED",
        "threadId": RUN,
        "runId": RUN,
        "protocolVersion": "1.0",
        "parentRunId": _id(9),
    }
    assert events[1]["snapshot"]["steps"] == {"old": {"status": "completed", "kept": True}}
    custom = [event["name"] for event in events if event["type"] == "CUSTOM"]
    assert custom == ["superseded", "steered", "people_asked", "people_decided", "attempt_failed"]
    assert _state(events)["steps"] | {} == {
        "old": {"status": "completed", "kept": True},
        "s": {"status": "skipped"},
        "b/~x": {"status": "caught", "code": "provider_timeout"},
        "a": _facts(A),
        "t": _facts(T),
    }
    assert _state(events)["run"]["status"] == "completed"


def _facts(of: StepBegan) -> dict[str, Any]:
    return {
        "status": "completed",
        "kind": of.kind,
        "agent": of.agent,
        "model": "m",
        "attempt": 1,
        "messageId": of.execution,
        "inputTokens": 1,
        "outputTokens": 2,
        "costUsd": 0.5,
        "latencyMs": 7,
        "simulated": True,
        "code": None,
    }


def _state(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Snapshots and deltas, applied as RFC 6902 says."""
    state: dict[str, Any] = {}
    for event in events:
        if event["type"] == "STATE_SNAPSHOT":
            state = json.loads(json.dumps(event["snapshot"]))
        for change in event["delta"] if event["type"] == "STATE_DELTA" else ():
            *parents, last = [
                part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]
            ]
            target = state
            for part in parents:
                target = target[part]
            assert change["op"] == "add" or last in target
            target[last] = change["value"]
    return state


@pytest.mark.parametrize(
    ("end", "types"),
    [
        (RunEnded("failed", "", "provider_auth", 0, None, 1), ["STATE_DELTA", "RUN_ERROR"]),
        (RunEnded("failed", "cancelled", "cancelled", 0, None, 1), ["STATE_DELTA", "RUN_FINISHED"]),
    ],
)
def test_other_ends(end: RunEnded, types: list[str]) -> None:
    events = [checked(block.data) for block in AGUI.blocks(RUN, end)]
    assert [event["type"] for event in events] == types
    assert events[1].get("code", events[1].get("outcome")) in ("provider_auth", {"type": "cancelled"})
    last = json.loads(VERCEL.blocks(RUN, end)[-2].data)
    assert last["type"] == ("error" if types[1] == "RUN_ERROR" else "abort")
    assert SEED.blocks(RUN, end)[0].event == "error"


def test_who_joins_in_the_middle_is_told_what_the_rest_needs() -> None:
    place = next(at for at, live in enumerate(LIVES) if live.event is B2)
    began_run = LIVES[0].event
    assert isinstance(began_run, RunBegan)
    past = CatchUp(began_run, [ended(T)], [], [(A, "Hé🙂"), (B2, "")])
    rest = b"".join(frame(AGUI, RUN, "", live) for live in fresh()[place + 1 :])
    events = [checked(block.data) for block in AGUI.joined(past)]
    events += [checked(block["data"]) for block in blocks_of(rest)]
    assert verify(events) == {A.execution: "Hé🙂", B2.execution: ""}
    whole = [checked(block["data"]) for block in blocks_of(sent(AGUI, fresh()))]
    assert _state(events) == _state(whole)
    assert json.loads(VERCEL.joined(past)[-1].data)["type"] == "data-step"
    assert SEED.joined(past) == []


def test_the_ui_message_stream() -> None:
    blocks = blocks_of(sent(VERCEL, fresh()))
    assert blocks[-1]["data"] == "[DONE]"
    parts = [json.loads(block["data"]) for block in blocks[:-1]]
    assert [part["type"] for part in parts[:2]] == ["start", "start-step"]
    assert [part["type"] for part in parts[-2:]] == ["finish-step", "finish"]
    open_parts: dict[str, str] = {}
    for part in parts:
        if part["type"] == "text-start":
            open_parts[part["id"]] = ""
        elif part["type"] == "text-delta":
            open_parts[part["id"]] += part["delta"]
        elif part["type"] != "text-end":
            known = ("start", "start-step", "finish-step", "finish")
            assert part["type"] in known or part["type"].startswith(("data-", "tool-"))
    assert open_parts == {A.execution: "Hé🙂", B.execution: "line\r\n\n", B2.execution: ""}
    ends = [part["id"] for part in parts if part["type"] == "text-end"]
    assert ends == [B.execution, B2.execution, A.execution]


def test_what_agents_say() -> None:
    blocks = blocks_of(sent(SEED, fresh()))
    named = [block for block in blocks if "event" in block]
    assert [(block["event"], json.loads(block["data"]).get("content")) for block in named] == [
        ("agent_output", "Hé"),
        ("agent_output", "line\r\n\n"),
        ("agent_output", "🙂"),
        ("agent_done", None),
        ("agent_done", None),
        ("agent_done", None),
        ("done", None),
    ]
    assert json.loads(named[0]["data"])["agent"] == "coder"
    assert json.loads(named[3]["data"])["status"] == "superseded"
    assert json.loads(named[5]["data"])["simulated"] is True
    assert json.loads(named[6]["data"])["output"] == {"sum": 3}


def test_who_listens_to_unnamed_events_hears_what_agents_say() -> None:
    """The page of the founding document: `onmessage`, of which EventSource keeps named events away."""
    blocks = blocks_of(sent(SEED, fresh()))
    heard = [json.loads(block["data"]) for block in blocks if "event" not in block]
    assert heard == [{"agent": "coder", "content": text} for text in ("Hé", "line\r\n\n", "🙂")]


def test_messages_of_a_socket_hold_the_same_events() -> None:
    lines = sent(SOCKET, fresh()).decode().split("\n")[:-1]
    messages = [json.loads(line) for line in lines]
    blocks = blocks_of(sent(AGUI, fresh()))
    assert [(one["seq"], one["event"]) for one in messages] == [
        (block["id"], json.loads(block["data"])) for block in blocks
    ]


def test_messages_of_a_socket_say_who_speaks_and_what() -> None:
    """The page of the founding document: `renderAgent(chunk.agent, chunk.content)`."""
    messages = [json.loads(line) for line in sent(SOCKET, fresh()).decode().split("\n")[:-1]]
    said = [(one["agent"], one["content"]) for one in messages if "content" in one]
    assert said == [("coder", "Hé"), ("coder", "line\r\n\n"), ("coder", "🙂")]
    began_run = LIVES[0].event
    assert isinstance(began_run, RunBegan)
    joined = SOCKET.joined(CatchUp(began_run, open=[(A, "Hé")]))
    assert json.loads("{" + joined[-1].data)["agent"] == "coder"


def test_tools_that_a_model_calls_are_told() -> None:
    events = [checked(block.data) for event in (CALLED, RETURNED) for block in AGUI.blocks(RUN, event)]
    one = [event for event in events if event["toolCallId"] == "a~tools1.0"]
    assert [event["type"] for event in one] == [
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
    ]
    assert (one[0]["toolCallName"], one[0]["parentMessageId"]) == ("text_diff", A.execution)
    assert (one[1]["delta"], one[3]["content"]) == ('{"before":"x","after":"y"}', '{"added":1}')
    parts = [json.loads(block.data) for event in (CALLED, RETURNED) for block in VERCEL.blocks(RUN, event)]
    told = [(part["type"], part.get("input", part.get("output", part.get("errorText")))) for part in parts]
    assert told == [
        ("tool-input-available", {"before": "x", "after": "y"}),
        ("tool-input-available", "no JSON"),
        ("tool-output-available", {"added": 1}),
        ("tool-output-error", "refused"),
    ]
    assert all(part["dynamic"] and part["providerExecuted"] for part in parts)


def test_tools_called_before_somebody_joins_are_told_with_their_message() -> None:
    began_run = LIVES[0].event
    assert isinstance(began_run, RunBegan)
    past = CatchUp(
        began_run, [ended(A)], [(ended(A), "")], [], {A.execution: CALLED}, {CALLED.path: RETURNED}
    )
    snapshot = next(checked(block.data) for block in AGUI.joined(past) if "MESSAGES_SNAPSHOT" in block.data)
    said, *results = snapshot["messages"]
    assert [call["function"]["name"] for call in said["toolCalls"]] == ["text_diff", "http"]
    assert [(one["toolCallId"], one.get("error")) for one in results] == [
        ("a~tools1.0", None),
        ("a~tools1.1", "tool_args_wrong"),
    ]
    types = [json.loads(block.data)["type"] for block in VERCEL.joined(past)]
    assert types[-4:] == ["tool-input-available"] * 2 + ["tool-output-available", "tool-output-error"]


def test_the_end_says_what_came_out_or_what_failed_and_where() -> None:
    last = checked(AGUI.blocks(RUN, STORY[-1])[-1].data)
    assert last["result"]["output"] == {"sum": 3}
    end = RunEnded(
        "failed", "", "tool_failed", 0, None, 1, error_message="the address answered 500", error_step="fetch"
    )
    said = "step 'fetch': the address answered 500"
    assert checked(AGUI.blocks(RUN, end)[-1].data) == {
        "type": "RUN_ERROR",
        "code": "tool_failed",
        "message": said,
    }
    assert json.loads(VERCEL.blocks(RUN, end)[-2].data)["errorText"] == f"tool_failed: {said}"
    assert json.loads(SEED.blocks(RUN, end)[0].data) == {"code": "tool_failed", "message": said}


@pytest.mark.parametrize("dialect", [AGUI, SOCKET, VERCEL], ids=lambda one: one.name)
@pytest.mark.parametrize("kind", get_args(LiveEvent), ids=lambda one: one.__name__)
def test_every_kind_of_event_is_told_in_every_dialect(dialect: Dialect, kind: type[Any]) -> None:
    told = [event for event in STORY if isinstance(event, kind)]
    assert any(dialect.blocks(RUN, event) for event in told)


def test_an_event_is_encoded_once() -> None:
    lives = fresh()
    assert sent(AGUI, lives) is not None
    assert frame(AGUI, RUN, "", lives[0]) is lives[0].frames["agui"]
    assert set(lives[0].frames) == {"agui"}


def test_half_a_surrogate_pair_breaks_nothing() -> None:
    assert as_sse("1", AGUI.blocks(RUN, said(A, "\ud83d"))[0]).decode().endswith('"?"}\n\n')


# -- every cut ----------------------------------------------------------------------------------------------


def resumed(dialect: Dialect, id: str, order: list[PlacedEvent]) -> bytes:
    """What a client is sent who comes back with an id, where the source tells the rest in this order."""
    cursor = parse(id)
    marks = tuple(one for one in cursor.marks if one.kind == "m")
    out = []
    for mark in cursor.marks:
        if mark.kind == "b":
            begun = next(
                one.event
                for one in order
                if getattr(one.event, "execution", "x").replace("-", "")[:12] == mark.key
            )
            blocks, _ = numbered(
                dialect, RUN, cursor.place, PlacedEvent(cursor.place, AT, begun), (mark, *marks)
            )
            out += [dialect.write(*one) for one in blocks]
    before = cursor.place
    if cursor.ended:
        return b""
    places = [one.place for one in order]
    for live in order[places.index(cursor.place) + 1 if cursor.place else 0 :]:
        blocks, marks = numbered(dialect, RUN, before, live, marks)
        out += [dialect.write(*one) for one in blocks]
        before = live.place
    return b"".join(out)


@pytest.mark.parametrize("dialect", [AGUI, VERCEL, SEED], ids=lambda one: one.name)
def test_a_cut_behind_any_block_loses_and_doubles_nothing(dialect: Dialect) -> None:
    whole = blocks_of(sent(dialect, fresh()))
    ids = [block["id"] for block in whole]
    assert len(set(ids)) == len(ids)
    for at, id in enumerate(ids):
        assert blocks_of(resumed(dialect, id, LIVES)) == whole[at + 1 :], id


def test_a_cut_between_both_ways_of_telling_what_was_said_since_told_with_more() -> None:
    first = PlacedEvent("1.1~a:1", AT, said(A, "Hé"))
    [(id, _), _] = numbered(SEED, RUN, "1.1", first)[0]
    more = PlacedEvent("1.1~a:3", AT, said(A, "Hé, du da"))
    blocks, left = numbered(SEED, RUN, "1.1", more, parse(id).marks)
    told = [(block.event, json.loads(block.data)["content"]) for _, block in blocks]
    assert (told, left) == ([("agent_output", ", du da"), ("", "Hé, du da")], ())
    # Cut again between them, and nothing more was said.
    blocks, _ = numbered(SEED, RUN, "1.1", more, parse(blocks[0][0]).marks)
    assert [block.event for _, block in blocks] == [""]


def test_a_cut_within_an_event_that_then_comes_later() -> None:
    end = next(at for at, live in enumerate(LIVES) if live.event == ended(A))
    first = blocks_of(sent(AGUI, fresh()[:end]))
    cut = numbered(AGUI, RUN, LIVES[end - 1].place, LIVES[end])[0][0]
    # Another event is told first now, and the line is cut again behind each of its blocks.
    other, last = LIVES[end + 1], LIVES[end]
    order = [
        *LIVES[:end],
        PlacedEvent("f1.1", AT, other.event),
        PlacedEvent("f2.1", AT, last.event),
        *LIVES[end + 2 :],
    ]
    rest = blocks_of(resumed(AGUI, cut[0], order))
    whole = [json.loads(block["data"]) for block in [*first, {"data": cut[1].data}, *rest]]
    verify(whole)
    assert len(whole) == len(blocks_of(sent(AGUI, fresh())))
    for at, block in enumerate(rest):
        again = blocks_of(resumed(AGUI, block["id"], order))
        assert again == rest[at + 1 :]


def test_ids_are_read_as_they_were_written() -> None:
    assert parse("") == Cursor()
    assert parse("1.2+3~0123456789ab:f") == Cursor(place="1.2+3~0123456789ab:f")
    mark = Mark("m", mark_of(ended(A)), 2)
    found = parse(f"{RUN}:p7{mark}!e")
    assert (str(found.run), found.place, found.marks, found.ended) == (RUN, "p7", (mark,), True)
    assert parse(f"{RUN}:1.1!j.12").joining == 12


@pytest.mark.parametrize("wrong", ["x", "1.1!", f"{RUN}", "1.1!m12.1", "1.1\n", "1" * 40_000, "1.1!j.1234"])
def test_other_ids_are_refused(wrong: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(wrong)
    assert caught.value.code == "stream_place_invalid"
