"""The router learns: from rows in Postgres to a checkpoint in shadow, from there to all, and back."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.routing.learn import LearnActivity
from activities.routing.rollouts import RolloutsActivity
from db.engine import transaction
from db.router import checkpoints, quarantines, trainings
from db.router.checkpoints import CheckpointSummary
from router.checkpoints import storage
from router.checkpoints.fitting import Effort
from router.data import features
from router.network.training import TrainingConfig
from router.statistics import model
from schema.errors import Refused
from schema.tables.router import outcomes as outcomes_table
from schema.tables.router import routing_decisions
from schema.tables.runs import agent_executions, collaborations
from schema.temporal.learning import LearnRequest, LearnStep, TrainingOutcome
from schema.temporal.queues import QUEUE_LEARNING
from tests.support.runs import begin, rows
from tests.support.stack import Stack
from workflows.learning import Learn, workflow_id

CHEAP, STRONG = "openai/gpt-4o-mini", "openai/gpt-4o"
RATE = {("coder", CHEAP): 0.9, ("coder", STRONG): 0.9, ("reviewer", CHEAP): 0.2, ("reviewer", STRONG): 0.9}
HALF = {CHEAP: 0.5, STRONG: 0.5}
TO_CHEAP, TO_STRONG = {CHEAP: 0.95, STRONG: 0.05}, {CHEAP: 0.05, STRONG: 0.95}
TASKS = [f"Write the {n} of {thing}" for n in range(10) for thing in ("a parser", "a queue", "a ledger")]
ROUTED: dict[str, Any] = {
    "agents": {role: {"role": role, "model": {"among": [CHEAP, STRONG]}} for role in ("coder", "reviewer")},
    "steps": {
        role: {"kind": "agent", "agent": role, "prompt": "Do ${input.task}"} for role in ("coder", "reviewer")
    },
}

Features = Callable[[str], dict[str, Any]]


async def steps(
    engine: AsyncEngine,
    count: int,
    chances: dict[str, float] = HALF,
    features: Features = lambda _: {},
    *,
    tenant: str = "default",
    seed: int = 0,
    rates: dict[tuple[str, str], float] = RATE,
    told: bool = True,
    policy: str = "rules-v1",
) -> list[uuid.UUID]:
    """Routed steps that ended just now, each a run of its own, and what somebody says came of them."""
    first = await begin(engine, ROUTED, step="coder", tenant=tenant)
    random = np.random.default_rng(seed)
    [(version, traceparent)] = await rows(
        engine, "SELECT workflow_id, traceparent FROM collaborations WHERE id = :id", id=first.collaboration
    )
    now = datetime.now(UTC)
    held: dict[str, list[dict[str, Any]]] = {"runs": [], "executions": [], "decisions": [], "outcomes": []}
    for n in range(count):
        role = ("coder", "reviewer")[int(random.integers(2))]
        chosen = list(chances)[int(random.choice(len(chances), p=list(chances.values())))]
        # Their ids decide who is held out.
        run, execution = (uuid.uuid5(uuid.NAMESPACE_OID, f"{tenant} {seed} {told} {n} {of}") for of in "re")
        ended = now + timedelta(microseconds=n)
        ok = float(random.random() < rates[role, chosen])
        held["runs"].append(
            {
                "id": run,
                "tenant_id": tenant,
                "workflow_id": version,
                "temporal_workflow_id": str(run),
                "task": TASKS[int(random.integers(len(TASKS)))],
                "input": {},
                "status": "completed",
                "traceparent": traceparent,
                "completed_at": ended,
            }
        )
        held["executions"].append(
            {
                "id": execution,
                "tenant_id": tenant,
                "collaboration_id": run,
                "path": role,
                "step_id": role,
                "kind": "agent",
                "attempt": 1,
                "agent_name": role,
                "role": role,
                "model_id": chosen,
                "requested_model": chosen,
                "status": "completed",
                "completed_at": ended,
                "input_tokens": int(random.integers(80, 120)),
                "output_tokens": int(random.integers(40, 60)),
                "latency_ms": int(random.integers(800, 1_200)),
                "cost_usd": 0.001,
            }
        )
        held["decisions"].append(
            {
                "id": uuid.uuid4(),
                "tenant_id": tenant,
                "collaboration_id": run,
                "path": role,
                "step_id": role,
                "policy": policy,
                "features": features(role),
                "candidates": chances,
                "chosen_model": chosen,
                "propensity": chances[chosen],
                "fallback": False,
                "created_at": ended,
            }
        )
        held["outcomes"].append(
            {"execution_id": execution, "tenant_id": tenant, "ok": ok, "actor": "test", "note": ""}
        )
    tables = {
        "runs": collaborations,
        "executions": agent_executions,
        "decisions": routing_decisions,
        "outcomes": outcomes_table,
    }
    async with transaction(engine) as connection:
        for name, table in tables.items():
            if held[name] and (told or name != "outcomes"):
                await connection.execute(insert(table), held[name])
    return [one["execution_id"] for one in held["outcomes"]]


def step_of(seed: int = 0, tenant: str = "default") -> LearnStep:
    return LearnStep(str(uuid.uuid4()), tenant, "user:ann", seed, datetime.now(UTC).isoformat())


async def learn(engine: AsyncEngine, step: LearnStep, effort: Effort | None = None) -> TrainingOutcome:
    """What the workflow does, one activity after the other."""
    activities, environment = LearnActivity(engine, effort), ActivityEnvironment()
    collected = await environment.run(activities.collect_outcomes, step)
    assert not collected.reason, collected.reason
    await environment.run(activities.train_router, step)
    judged = await environment.run(activities.judge_training, step)
    assert judged.may_enter, judged.reason
    return await environment.run(activities.register_checkpoint, step)


async def look(engine: AsyncEngine) -> list[str]:
    return (await ActivityEnvironment().run(RolloutsActivity(engine).look_at_rollouts)).told


async def found(engine: AsyncEngine, number: int) -> CheckpointSummary:
    async with transaction(engine) as connection:
        return await checkpoints.find(connection, "default", number)


async def test_from_rows_to_a_checkpoint_in_shadow(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    await steps(engine, 40, told=False, seed=1)
    step = step_of()
    learned = await learn(engine, step)
    assert (learned.status, learned.checkpoint) == ("registered", 1)
    assert "its choices against those that were made: +" in learned.reason
    async with transaction(engine) as connection:
        training = await trainings.find(connection, "default", uuid.UUID(step.training))
        [serving] = await checkpoints.serving(connection, "default", simulated=False)
        content = await checkpoints.content(connection, serving.id)
    assert (training.status, training.reason) == ("registered", learned.reason)
    assert training.data["refused"] == {"ok_unknown": 40}
    assert training.data["sources"] == {"told": 300}
    assert training.data["models"] == [STRONG, CHEAP]
    assert training.figures["logged"] == training.figures["held_out"] == training.data["held_out"]
    assert training.figures["curves"]["calibration"]
    manifest = (await found(engine, 1)).manifest
    assert manifest["seed"] == 0 and manifest["data"] == training.data
    assert manifest["code"].startswith("0.") and "numpy" in manifest["libraries"]
    kept = storage.unpack(content, serving.sha256)
    texts = [f"{TASKS[0]}\nDo ${{input.task}}"] * 2
    told = model.predict(
        kept, features.rows(texts), texts, ["coder/general", "reviewer/general"], [CHEAP, STRONG]
    )
    np.testing.assert_allclose(told.success, [[0.9, 0.9], [0.2, 0.9]], atol=0.15)
    # Once more, as after a crash between the register and its answer, nothing changes.
    again = await ActivityEnvironment().run(LearnActivity(engine).register_checkpoint, step)
    assert again.checkpoint == 1
    assert await rows(engine, "SELECT kind, epoch, state FROM checkpoints ORDER BY kind") == [
        ("milestone", 0, None),
        ("production", 0, "shadow"),
    ]


async def test_the_same_rows_and_seed_make_the_same_weights(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    first = step_of()
    for step in (first, LearnStep(str(uuid.uuid4()), "default", "user:bob", 0, first.until)):
        await learn(engine, step)
    sums = await rows(engine, "SELECT DISTINCT sha256 FROM checkpoints WHERE kind = 'production'")
    assert len(sums) == 1


async def test_too_little_to_learn_from_is_refused_with_the_reason(engine: AsyncEngine) -> None:
    async def reason(step: LearnStep) -> str:
        return (await ActivityEnvironment().run(LearnActivity(engine).collect_outcomes, step)).reason

    await steps(engine, 30)
    await steps(engine, 25, told=False)
    said = await reason(step_of())
    assert said.startswith("found ") and "expected 50. Refused: 25 ok_unknown." in said
    await steps(engine, 90, {CHEAP: 1.0, STRONG: 0.0}, tenant="one")
    assert await reason(step_of(tenant="one")) == (
        f"found outcomes of {CHEAP} alone; expected 2 models to choose from."
    )


async def test_a_training_goes_on_at_the_epoch_where_it_was_killed(engine: AsyncEngine) -> None:
    """The second attempt knows nothing of the first but what stands in Postgres; both come to one curve."""
    await steps(engine, 150)
    effort = Effort(least_steps=20, plan=TrainingConfig(epochs=2, patience=2))
    step = step_of()
    environment = ActivityEnvironment()
    await environment.run(LearnActivity(engine, effort).collect_outcomes, step)
    running = asyncio.create_task(environment.run(LearnActivity(engine, effort).train_router, step))
    while not (epochs := await rows(engine, "SELECT epoch FROM checkpoints WHERE kind = 'training'")):
        assert not running.done(), await running
        await asyncio.sleep(0.05)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    done = await ActivityEnvironment().run(LearnActivity(engine, effort).train_router, step)
    assert done.resumed_at >= epochs[0][0] >= 1
    assert done.epochs > done.resumed_at
    whole = LearnStep(str(uuid.uuid4()), "default", "user:ann", 0, step.until)
    await ActivityEnvironment().run(LearnActivity(engine, effort).collect_outcomes, whole)
    await ActivityEnvironment().run(LearnActivity(engine, effort).train_router, whole)
    async with transaction(engine) as connection:
        killed = await trainings.find(connection, "default", uuid.UUID(step.training))
        other = await trainings.find(connection, "default", uuid.UUID(whole.training))
        kept = [
            [(one.epoch, one.sha256) for one in await checkpoints.of_training(connection, uuid.UUID(id))]
            for id in (step.training, whole.training)
        ]
    assert [one["epoch"] for one in killed.curve] == list(range(1, done.epochs + 1))
    assert killed.curve == other.curve
    assert kept[0] == kept[1] and len(kept[0]) >= 4
    assert killed.data["network"].startswith("the network ")


async def test_evidence_takes_it_from_shadow_to_all(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    await learn(engine, step_of())
    assert await look(engine) == ["default: checkpoint 1 in shadow waits for outcomes"]
    # It would have asked the strong one where rules mostly ask the cheap one.
    said_only = {"shadow": {"1": TO_STRONG}}
    watched = await steps(engine, 400, TO_CHEAP, lambda _: said_only, seed=2, told=False)
    assert await look(engine) == ["default: checkpoint 1 in shadow waits for outcomes"]
    # Outcomes that come late count when they come.
    async with transaction(engine) as connection:
        await connection.execute(
            text("""
            INSERT INTO outcomes (execution_id, tenant_id, ok, actor)
            SELECT id, tenant_id, CASE WHEN role = 'coder' OR requested_model = :strong
                THEN (random() < 0.9)::int ELSE (random() < 0.2)::int END, 'late'
            FROM agent_executions WHERE id = ANY(:ids)
            """),
            {"strong": STRONG, "ids": watched},
        )
    [said] = await look(engine)
    assert said.startswith("default: checkpoint 1 in shadow -> share: gain +0.")
    shared = {name: 0.9 * TO_CHEAP[name] + 0.1 * TO_STRONG[name] for name in TO_CHEAP}
    await steps(engine, 100, shared, lambda _: {"shadow": {"1": TO_STRONG}}, seed=3)
    [said] = await look(engine)
    assert "checkpoint 1 in share, 100 of 200 outcomes" in said
    assert (await found(engine, 1)).outcomes == 100
    await steps(engine, 300, shared, lambda _: {"shadow": {"1": TO_STRONG}}, seed=4)
    [said] = await look(engine)
    assert said.startswith("default: checkpoint 1 in share -> all: gain +0.")
    await steps(engine, 250, TO_STRONG, lambda _: {"checkpoint": 1, "votes": {"rules": CHEAP}}, seed=5)
    [said] = await look(engine)
    assert "checkpoint 1 in all, 250 outcomes, gain +0." in said and "on rules" in said
    assert (await found(engine, 1)).state == "all"


async def test_its_intervals_move_with_what_steps_really_took(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    await learn(engine, step_of())
    await look(engine)
    async with transaction(engine) as connection:
        [before] = await checkpoints.serving(connection, "default", simulated=False)
    assert before.moved is None, "nothing has come since"
    slow = await steps(engine, 80, seed=2)
    async with transaction(engine) as connection:
        slower = text("UPDATE agent_executions SET latency_ms = 5000 WHERE id = ANY(:ids)")
        await connection.execute(slower, {"ids": slow})
    await look(engine)
    await look(engine)  # nothing new, nothing moves
    async with transaction(engine) as connection:
        [after] = await checkpoints.serving(connection, "default", simulated=False)
        followed = await checkpoints.followed(connection, after.id)
    assert after.moved is not None
    seconds, tokens = after.moved["seconds"], after.moved["output_tokens"]
    assert seconds["all"][""]["shift"] + seconds["models"][CHEAP]["shift"] > 0.3, "five times as long"
    assert abs(tokens["all"][""]["shift"]) < 0.1, "and said no more"
    assert len(followed["held"]["seconds"]) == 80


async def test_one_that_does_harm_is_rolled_back_and_the_one_before_serves(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    for number in (1, 2):
        await learn(engine, step_of())
        async with transaction(engine) as connection:
            for _ in range(2 if number == 1 else 1):
                await checkpoints.promote(connection, "default", number, "user:ann")
    mixed = {name: 0.9 * TO_STRONG[name] + 0.1 * TO_CHEAP[name] for name in TO_CHEAP}
    both = {"1": TO_STRONG, "2": TO_CHEAP}
    votes = {"checkpoint": 1, "votes": {"rules": CHEAP}}
    await steps(engine, 800, mixed, lambda _: {**votes, "shadow": both}, seed=6)
    said = await look(engine)
    assert any("checkpoint 2 in share -> rolled_back: worse: gain -0." in one for one in said)
    assert (await found(engine, 1)).state == "all"
    # Served to all by a person it is found out as well, and the one before serves again.
    await learn(engine, step_of())
    async with transaction(engine) as connection:
        for _ in range(2):
            await checkpoints.promote(connection, "default", 3, "user:ann")
    await steps(engine, 400, TO_CHEAP, lambda _: {"checkpoint": 3, "votes": {"rules": STRONG}}, seed=7)
    [back] = await look(engine)
    assert back.startswith("default: checkpoint 3 in all -> rolled_back: worse: gain -0.")
    assert [(await found(engine, n)).state for n in (1, 2, 3)] == ["all", "rolled_back", "rolled_back"]
    actions = await rows(
        engine, "SELECT subject FROM audit_log WHERE action = 'checkpoint.rolled_back' AND actor = 'rollout'"
    )
    assert actions == [("2",), ("3",)]


async def test_a_model_that_breaks_rests_and_its_checkpoint_waits(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    await learn(engine, step_of())
    predicted = {name: {"ok": 0.9, "doubt": 0.02} for name in (CHEAP, STRONG)}
    held = {"shadow": {"1": TO_STRONG}, "predicted": predicted}
    well = dict.fromkeys(RATE, 0.9)
    await steps(engine, 300, TO_STRONG, lambda _: held, seed=8, rates=well)
    broken = {key: 0.9 if key[1] == CHEAP else 0.2 for key in RATE}
    await steps(engine, 60, TO_STRONG, lambda _: held, seed=9, rates=broken)
    said = await look(engine)
    assert said[0].startswith(f"default: {STRONG} rests until ") and "went well where" in said[0]
    assert said[1].endswith(f"; waits while {STRONG} rests") and "200 of 200 outcomes" in said[1]
    async with transaction(engine) as connection:
        [resting] = await quarantines.active(connection, "default", simulated=False)
    assert (resting.model, resting.until - resting.since) == (STRONG, quarantines.FIRST)
    assert not any("rests until" in one for one in await look(engine)), "it rests already"
    async with transaction(engine) as connection:
        await quarantines.lift(connection, "default", STRONG, "user:ann", simulated=False)
    # What it came to before it rested says nothing any more.
    [said_then] = await look(engine)
    assert "-> share" in said_then or "in shadow, 200 of 200" in said_then


async def test_a_broken_checkpoint_is_neither_judged_nor_registered(engine: AsyncEngine) -> None:
    await steps(engine, 300)
    step = step_of()
    environment, activities = ActivityEnvironment(), LearnActivity(engine)
    await environment.run(activities.collect_outcomes, step)
    await environment.run(activities.train_router, step)
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE checkpoints SET content = content || '\\x00'::bytea"))
    for activity in (activities.judge_training, activities.register_checkpoint):
        with pytest.raises(Refused, match="found bytes of sha256") as caught:
            await environment.run(activity, step)
        assert caught.value.code == "checkpoint_broken"
    assert await rows(engine, "SELECT count(*) FROM checkpoints WHERE kind = 'production'") == [(0,)]


async def test_nights_are_for_who_has_learned_nothing_of_late(engine: AsyncEngine) -> None:
    async def due() -> list[str]:
        return (await ActivityEnvironment().run(LearnActivity(engine).due_to_learn)).tenants

    await steps(engine, 99, tenant="few")
    await steps(engine, 300)
    assert await due() == ["default"]
    await learn(engine, step_of())
    assert await due() == []
    await steps(engine, 100, seed=1)
    assert await due() == [], "its challenger is given time"
    async with transaction(engine) as connection:
        await checkpoints.roll_back(connection, "default", "enough", "user:ann", simulated=False)
    assert await due() == ["default"]


async def test_it_learns_as_a_workflow_and_tells_why_it_does_not(platform: Stack) -> None:
    """In Temporal, by the platform's own worker."""
    tenant = "learner"
    await steps(platform.engine, 30, tenant=tenant)

    async def run() -> TrainingOutcome:
        done: TrainingOutcome = await platform.client.execute_workflow(
            Learn.run, LearnRequest(tenant, "user:ann"), id=workflow_id(tenant), task_queue=QUEUE_LEARNING
        )
        return done

    refused = await run()
    assert (refused.status, refused.checkpoint) == ("refused", None)
    assert "expected 50" in refused.reason
    await steps(platform.engine, 200, tenant=tenant, seed=1)
    learned = await run()
    assert (learned.status, learned.checkpoint) == ("registered", 1)
    async with transaction(platform.engine) as connection:
        newest, before = await trainings.page(connection, tenant)
        [serving] = await checkpoints.serving(connection, tenant, simulated=False)
    assert (str(newest.id), newest.status, newest.started_by) == (learned.training, "registered", "user:ann")
    assert (str(before.id), before.status, before.reason) == (refused.training, "refused", refused.reason)
    assert (serving.number, serving.state) == (1, "shadow")
