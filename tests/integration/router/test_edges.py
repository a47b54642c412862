"""Adaptive edges and the replay buffer in Postgres."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent import readers
from activities.runs.context import load
from bench.research import experiences
from bench.research.experiences import Experience
from db.engine import transaction
from db.router import edges
from db.router.edges import EdgeDraw, EdgeKey, EdgeTrial
from router.edges import adaptive as looking
from router.edges import topology
from router.edges.forecast import Foresight
from schema.errors import NotFound
from schema.settings import Settings
from schema.temporal.steps import StepRequest
from tests.support.api_client import door, problem
from tests.support.runs import begin, rows

KEY = EdgeKey("default", "one", "write", "check", simulated=False)
DEFINITION: dict[str, Any] = {
    "agents": {"a": {"model": "openai/gpt-4"}},
    "steps": {name: {"kind": "agent", "agent": "a", "prompt": "Go."} for name in ("write", "check")},
    "stream": [{"from": "write", "to": "check", "start": "sentence", "adaptive": True}],
}
_ENDED = """
    INSERT INTO collaborations (id, workflow_id, temporal_workflow_id, task, input, status, quality_score,
        traceparent, completed_at)
    SELECT gen_random_uuid(), run.workflow_id, 'wf-' || number, 't', '{}', 'completed',
        0.5 + :helps * (number % 2) + 0.001 * (number % 7), run.traceparent, now()
    FROM collaborations AS run, generate_series(1, :runs) AS number WHERE run.id = :run
    RETURNING id, temporal_workflow_id
"""


async def _ended(
    engine: AsyncEngine, runs: int, helps: float, key: EdgeKey = KEY, definition: dict[str, Any] = DEFINITION
) -> None:
    """Runs that had the edge and runs that had not, by turns; better by `helps` with it."""
    run = (await begin(engine, definition, step=key.target)).collaboration
    async with transaction(engine) as connection:
        await edges.meet(connection, [key])
        values = {"run": UUID(run), "runs": runs, "helps": helps}
        for id, name in (await connection.execute(text(_ENDED), values)).all():
            told = int(name.removeprefix("wf-")) % 2 == 1
            decision = EdgeDraw(key.target, key.source, key.target, told, 0.5)
            await edges.decide(connection, id, key.tenant, key.definition, [decision])


async def _state(engine: AsyncEngine, key: EdgeKey = KEY) -> Any:
    async with transaction(engine) as connection:
        found = await edges.of_definition(connection, key.tenant, key.definition, simulated=False)
    return next(one for one in found if (one.source, one.target) == (key.source, key.target))


async def _review(engine: AsyncEngine) -> list[tuple[EdgeKey, edges.State]]:
    async with transaction(engine) as connection:
        return await looking.review(connection)


async def test_the_first_decision_of_a_run_is_kept(engine: AsyncEngine) -> None:
    run = UUID((await begin(engine, DEFINITION, step="check")).collaboration)
    first = EdgeDraw("check", "write", "check", False, 0.95)
    second = EdgeDraw("check", "write", "check", True, 0.05)
    async with transaction(engine) as connection:
        assert await edges.decided(connection, run, ["check"]) == {}
        for one in (first, second):
            kept = await edges.decide(connection, run, "default", "one", [one])
            assert kept == {("check", "write"): False}
    query = "SELECT path, source, target, delivered, chance, definition FROM edge_trials"
    assert await rows(engine, query) == [("check", "write", "check", False, 0.95, "one")]


async def test_evidence_is_what_people_say_then_the_run_then_the_step(engine: AsyncEngine) -> None:
    set_run = text(
        "UPDATE collaborations SET status = :status, quality_score = :quality, sub_state = :sub,"
        " forked_from = :forked WHERE id = :run"
    )
    add_step = text(
        "INSERT INTO agent_executions (id, collaboration_id, path, step_id, kind, attempt, agent_name,"
        " model_id, status, quality_score) VALUES (:id, :run, 'check', 'check', 'agent', 1, 'a', 'm',"
        " 'completed', :quality)"
    )
    cases: dict[str, tuple[str, float | None, str, float | None, float | None, float | None]] = {
        # status, the run's, sub-state, the step's, what people say → quality
        "people": ("completed", 0.9, "", 0.7, 0.2, 0.2),
        "run": ("completed", 0.9, "", 0.7, None, 0.9),
        "step": ("completed", None, "", 0.7, None, 0.7),
        "failed": ("failed", 0.9, "", 0.7, None, 0.0),
        "unjudged": ("completed", None, "", None, None, None),
        "cancelled": ("failed", 0.9, "cancelled", 0.7, None, None),
        "running": ("running", 0.9, "", 0.7, None, None),
        "fork": ("completed", 0.9, "", 0.7, None, None),
    }
    expected = []
    for name, (status, quality, sub, step, said, found) in cases.items():
        run = UUID((await begin(engine, DEFINITION, step="check")).collaboration)
        async with transaction(engine) as connection:
            forked = uuid4() if name == "fork" else None
            await connection.execute(
                set_run,
                {"status": status, "quality": quality, "sub": sub, "forked": forked, "run": run},
            )
            id = uuid4()
            await connection.execute(add_step, {"id": id, "run": run, "quality": step})
            if said is not None:
                told = text("INSERT INTO outcomes (execution_id, ok, actor) VALUES (:id, :ok, 'user:ada')")
                await connection.execute(told, {"id": id, "ok": said})
            decision = EdgeDraw("check", "write", "check", True, 0.95)
            await edges.decide(connection, run, "default", "one", [decision])
        if found is not None:
            expected.append(EdgeTrial(run, True, 0.95, found))
    async with transaction(engine) as connection:
        assert await edges.evidence(connection, KEY) == sorted(expected, key=lambda one: one.run)
        assert (
            await edges.evidence(connection, EdgeKey("other", "one", "write", "check", simulated=False)) == []
        )
        assert len(await edges.evidence(connection, KEY, limit=2)) <= 2


async def test_what_does_not_help_is_pruned_and_comes_back(engine: AsyncEngine) -> None:
    await _ended(engine, 200, helps=-0.1)
    assert await _review(engine) == [(KEY, "pruned")]
    found = await _state(engine)
    assert (found.state, found.runs, found.set_by) == ("pruned", 200, None)
    assert found.effect == pytest.approx(-0.1, abs=0.01) and found.low < found.effect < found.high < 0
    assert await _review(engine) == []
    await _ended(engine, 1_000, helps=0.1)
    assert await _review(engine) == [(KEY, "kept")]
    audited = "SELECT actor, action, subject, detail->>'before' FROM audit_log WHERE action LIKE 'edge.%'"
    assert await rows(engine, f"{audited} ORDER BY at") == [
        ("evidence", "edge.pruned", "one: write → check", "kept"),
        ("evidence", "edge.kept", "one: write → check", "pruned"),
    ]


async def test_what_a_person_pins_stays_until_they_let_go(engine: AsyncEngine) -> None:
    await _ended(engine, 200, helps=-0.1)
    async with transaction(engine) as connection:
        await edges.set_state(connection, KEY, "pinned", "user:ada")
    assert await _review(engine) == []
    found = await _state(engine)
    assert (found.state, found.set_by) == ("pinned", "user:ada")
    async with transaction(engine) as connection:
        # A look that had begun before.
        assert not await edges.judge(connection, KEY, "pruned", -0.1, -0.2, 0.0, 200)
        await edges.set_state(connection, KEY, "kept", "user:ada")
    assert await _review(engine) == [(KEY, "pruned")]
    assert (await _state(engine)).set_by is None
    audited = "SELECT actor, action FROM audit_log WHERE action LIKE 'edge.%' ORDER BY at"
    assert await rows(engine, audited) == [
        ("user:ada", "edge.pinned"),
        ("user:ada", "edge.kept"),
        ("evidence", "edge.pruned"),
    ]


async def test_an_edge_that_no_run_has_met_cannot_be_set(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await edges.meet(connection, [KEY])
        with pytest.raises(NotFound) as caught:
            await edges.set_state(connection, replace(KEY, tenant="other"), "pinned", "user:eve")
    assert caught.value.code == "edge_unknown"
    assert (await _state(engine)).state == "kept"


async def test_people_see_and_pin_edges_over_http(engine: AsyncEngine, settings: Settings) -> None:
    await _ended(engine, 200, helps=-0.1)
    await _review(engine)
    async with door(settings) as http:
        address = "/v1/definitions/one/edges"
        (other,) = (await http.get(address, params={"simulated": True})).json()["items"]
        assert (other["state"], other["runs"]) == ("kept", 0)
        (shown,) = (await http.get(address, params={"simulated": False})).json()["items"]
        assert (shown["source"], shown["target"], shown["state"], shown["runs"]) == (
            "write",
            "check",
            "pruned",
            200,
        )
        answer = await http.put(f"{address}/write/check", json={"state": "pinned"})
        (shown,) = answer.json()["items"]
        assert shown["state"] == "pinned" and shown["set_by"]
        problem(await http.put(f"{address}/check/write", json={"state": "pinned"}), 404, "edge_unknown")
        problem(await http.get("/v1/definitions/none/edges"), 404, "definition_unknown")
        wrong = await http.put(f"{address}/write/check", json={"state": "gone"})
        assert wrong.status_code in (400, 422)
    assert await _review(engine) == []


# -- what the network foresees -----------------------------------------------------------------------------

PROMPTS = {
    "reviewer": "Find what is wrong with this code: bugs, risks, missing tests.",
    "documenter": "Write the manual page of this feature for its users.",
    "coder": "Write a function that does what the task asks.",
}


def _team(name: str, sender: str) -> dict[str, Any]:
    """A definition where one tells a coder."""
    steps = {step: {"kind": "agent", "agent": step, "prompt": PROMPTS[step]} for step in (sender, "coder")}
    return {
        "name": name,
        "agents": {step: {"role": step} for step in steps},
        "steps": steps,
        "stream": [{"from": sender, "to": "coder", "start": "sentence", "adaptive": True}],
    }


async def _tried(engine: AsyncEngine, number: int, helps: dict[str, float]) -> None:
    """That many definitions of each sender, each with eighty judged runs."""
    for sender, gain in helps.items():
        for at in range(number):
            key = EdgeKey("default", f"{sender}-{at}", sender, "coder", simulated=False)
            await _ended(engine, 80, helps=gain, key=key, definition=_team(key.definition, sender))


async def _meet(engine: AsyncEngine, sender: str) -> tuple[EdgeKey, StepRequest]:
    """A run of a new definition, whose reader asks whether it is told."""
    key = EdgeKey("default", f"new-{sender}", sender, "coder", simulated=False)
    request = await begin(engine, _team(key.definition, sender), step="coder")
    await _deliver(engine, request)
    return key, request


async def _deliver(engine: AsyncEngine, request: StepRequest) -> float:
    """The chance by which the run's reader was told or not."""
    async with transaction(engine) as connection:
        context = await load(connection, request)
    await readers.of_step(engine, context, request, simulated=False)
    query = "SELECT chance FROM edge_trials WHERE collaboration_id = :run"
    ((chance,),) = await rows(engine, query, run=request.collaboration)
    return float(chance)


async def _look(engine: AsyncEngine, foresight: Foresight) -> list[tuple[EdgeKey, edges.State]]:
    async with transaction(engine) as connection:
        return await looking.review(connection, foresight)


async def test_an_edge_like_those_that_do_not_help_is_tried_at_even_chances(engine: AsyncEngine) -> None:
    await _tried(engine, 6, {"reviewer": 0.2, "documenter": -0.2})
    met = {sender: (await _meet(engine, sender))[0] for sender in ("reviewer", "documenter")}
    foresight = Foresight()
    pruned = {key.source for key, state in await _look(engine, foresight) if state == "pruned"}
    assert pruned == {"documenter"}
    assert "2 new ones are foreseen" in foresight.told["default"]
    found = {sender: await _state(engine, key) for sender, key in met.items()}
    assert {(one.state, one.set_by, one.runs) for one in found.values()} == {("kept", "network", 0)}
    assert found["documenter"].high < topology.MARGIN < found["reviewer"].effect
    chances = {}
    for sender in met:
        request = await begin(engine, _team(f"new-{sender}", sender), step="coder")
        chances[sender] = await _deliver(engine, request)
    assert chances == {"reviewer": topology.KEPT_CHANCE, "documenter": topology.DOUBTED_CHANCE}
    # What a run has drawn stays, and so does what was foreseen while nothing new is known.
    foresight.told.clear()
    assert await _look(engine, foresight) == []
    assert foresight.told == {}
    assert await _state(engine, met["documenter"]) == found["documenter"]
    # Its own runs go before what others let expect, and so does a person.
    definition = _team("new-documenter", "documenter")
    await _ended(engine, 80, helps=0.2, key=met["documenter"], definition=definition)
    async with transaction(engine) as connection:
        await edges.set_state(connection, met["reviewer"], "kept", "user:ada")
    assert await _look(engine, foresight) == []
    known, told = [await _state(engine, met[sender]) for sender in ("documenter", "reviewer")]
    assert (known.state, known.set_by, known.runs) == ("kept", None, 80)
    assert known.low == pytest.approx(0.2, abs=0.05) and known.low > topology.MARGIN
    assert (told.state, told.set_by) == ("kept", "user:ada")


async def test_where_the_known_edges_tell_nothing_a_new_one_is_tried_like_any(engine: AsyncEngine) -> None:
    # Who sends has nothing to do with what it brings.
    await _tried(engine, 3, {"reviewer": 0.2, "documenter": -0.2})
    for sender, gain in (("reviewer", -0.2), ("documenter", 0.2)):
        for at in range(3, 6):
            key = EdgeKey("default", f"{sender}-{at}", sender, "coder", simulated=False)
            await _ended(engine, 80, helps=gain, key=key, definition=_team(key.definition, sender))
    key, _ = await _meet(engine, "documenter")
    foresight = Foresight()
    await _look(engine, foresight)
    assert foresight.told["default"].endswith("nothing is foreseen")
    found = await _state(engine, key)
    assert (found.state, found.set_by, found.low, found.high) == ("kept", None, -1.0, 1.0)
    request = await begin(engine, _team(key.definition, key.source), step="coder")
    assert await _deliver(engine, request) == topology.KEPT_CHANCE


# -- the replay buffer -------------------------------------------------------------------------------------


def _episode(turns: int) -> list[Experience]:
    id = uuid4()
    return [
        Experience(id, turn, [0.5, float(turn)], turn, -0.25, 0.125, 1.0, turn == turns - 1)
        for turn in range(turns)
    ]


async def test_the_buffer_gives_back_whole_episodes_and_each_once(engine: AsyncEngine) -> None:
    first, second, other = _episode(3), _episode(3), _episode(2)
    async with transaction(engine) as connection:
        await experiences.append(connection, "default", "ppo", first)
        await experiences.append(connection, "default", "ppo", [])
        await experiences.append(connection, "default", "another", other)
        await experiences.append(connection, "default", "ppo", second)
        await experiences.append(connection, "default", "ppo", second)
    async with transaction(engine) as connection:
        assert await experiences.newest(connection, "default", "ppo", 100) == [*first, *second]
        assert await experiences.newest(connection, "default", "ppo", 5) == second
        assert await experiences.newest(connection, "default", "ppo", 2) == []
        assert await experiences.newest(connection, "else", "ppo", 100) == []
        assert await experiences.prune(connection, "default", "ppo", 4) == 2
        assert await experiences.prune(connection, "default", "ppo", 4) == 0
        assert await experiences.newest(connection, "default", "ppo", 100) == second
        assert await experiences.newest(connection, "default", "another", 100) == other
