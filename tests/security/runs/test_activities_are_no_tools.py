"""The platform's own activities are no user's tools: refused at upload, at dispatch, and by whoever calls."""

import inspect
import pkgutil
import typing
import uuid
from dataclasses import asdict, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, get_args

import pytest
from sqlalchemy import text
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import activities
from activities.runs.callers import CallerInterceptor, RunBound
from db.definitions import definitions
from db.engine import transaction
from schema.errors import InvalidDefinition, Refused
from schema.language.definition import Definition
from schema.rules.validate import validate
from schema.temporal import people, queues, runs, steps
from tests.integration.runs.test_collaboration import attempts, failure, run, unique
from tests.support.stack import Stack

QUEUES = sorted(queues.PLATFORM_QUEUES)
VICTIM: dict[str, Any] = {
    "steps": {"say": {"kind": "transform", "value": "the secret is ${input.secret}"}},
}
PLANNER: dict[str, Any] = {
    "steps": {"work": {"kind": "collaboration", "definition": "${input.plan}", "input": {}}},
}


def calling(activity: str, queue: str, **args: Any) -> dict[str, Any]:
    """A step that calls an activity, as an attacker would write it."""
    call = {"kind": "tool", "activity": activity, "task_queue": queue, "args": args}
    return {**call, "retry": {"max_attempts": 1}}


def codes(document: dict[str, Any], *, planned: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDefinition) as caught:
        validate(document, planned=planned)
    return [(problem.code, problem.pointer) for problem in caught.value.problems]


@pytest.mark.parametrize("queue", QUEUES)
def test_an_upload_that_names_a_queue_of_ours_is_refused(queue: str) -> None:
    step = calling("finish", queue)
    assert codes({"name": "a", "steps": {"a": step}}) == [("queue_reserved", "/steps/a/task_queue")]
    body = {"steps": {"b": step}, "output": 1}
    within = {"kind": "map", "over": "[1]", "max_items": 1, "body": body}
    assert codes({"name": "a", "steps": {"a": within}}) == [
        ("queue_reserved", "/steps/a/body/steps/b/task_queue")
    ]
    undo = {"activity": "finish", "task_queue": queue}
    undone = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}, "compensate": undo}
    assert codes({"name": "a", "steps": {"a": undone}}) == [
        ("queue_reserved", "/steps/a/compensate/task_queue")
    ]


_PAUSE = {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}
_AGENT = {"kind": "agent", "agent": "a", "prompt": "x"}


@pytest.mark.parametrize(
    ("steps", "agents", "pointers"),
    [
        ({"a": calling("x", "mine")}, {}, ["/steps/a/activity"]),
        (
            {"a": {**_PAUSE, "compensate": {"activity": "x", "task_queue": "mine"}}},
            {},
            ["/steps/a/compensate/activity"],
        ),
        ({"a": {"kind": "tool", "tool": "http", "args": {"url": "https://a.b"}}}, {}, ["/steps/a/tool"]),
        (
            {"a": {**_PAUSE, "compensate": {"tool": "http", "args": {"url": "https://a.b"}}}},
            {},
            ["/steps/a/compensate/tool"],
        ),
        ({"a": _AGENT}, {"a": {"role": "coder", "tools": ["http"]}}, ["/agents/a/tools/0"]),
        ({"a": {"kind": "collaboration", "ref": "payroll", "input": {}}}, {}, ["/steps/a/ref"]),
        (
            {"m": {"kind": "loop", "max_iterations": 1, "body": {"steps": {"a": calling("x", "mine")}}}},
            {},
            ["/steps/m/body/steps/a/activity"],
        ),
    ],
)
def test_a_definition_that_a_model_wrote_may_use_less(
    steps: dict[str, Any], agents: dict[str, Any], pointers: list[str]
) -> None:
    document = {"name": "plan", "agents": agents, "steps": steps}
    assert codes(document, planned=True) == [("not_for_plans", pointer) for pointer in pointers]
    assert validate(document).definition.name == "plan"


async def stored(on: Stack, document: dict[str, Any]) -> str:
    """Store a definition past the validator, as a release that did not refuse it has."""
    name = unique("stored")
    async with transaction(on.engine) as connection:
        definition = Definition.model_validate({**document, "name": name})
        await definitions.save(connection, "default", definition, "an older release")
    return name


async def victim(on: Stack) -> tuple[str, str]:
    """(id, UUID) of somebody's run, which has ended."""
    name = unique("victim")
    assert await run(on, {**VICTIM, "name": name}, {"secret": "42"}) == "the secret is 42"
    async with on.engine.connect() as connection:
        query = "SELECT temporal_workflow_id, id::text FROM collaborations WHERE temporal_workflow_id LIKE :n"
        return tuple((await connection.execute(text(query), {"n": f"{name}%"})).one())


async def test_a_stored_definition_does_not_reach_another_run(platform: Stack) -> None:
    _, other = await victim(platform)
    forged = runs.Finish(other, "some-other-tenant", f"00-{'1' * 32}-{'2' * 16}-01", "completed")
    name = await stored(platform, {"steps": {"read": calling("finish", "collaborations", **asdict(forged))}})
    error = await failure(await platform.start(name, {}, name))
    assert error.type == "queue_reserved"
    assert await attempts(platform, name) == [("read", 1, "failed", "queue_reserved")]


async def test_a_stored_definition_does_not_undo_with_an_activity_of_ours(platform: Stack) -> None:
    _, other = await victim(platform)
    undo = {"activity": "finish", "task_queue": "collaborations", "args": {"collaboration": other}}
    steps = {
        "pause": {**_PAUSE, "compensate": undo},
        "fail": {"kind": "tool", "tool": "json.parse", "args": {"text": "no"}, "needs": ["pause"]},
    }
    name = await stored(platform, {"steps": steps})
    assert (await failure(await platform.start(name, {}, name))).type == "tool_failed"
    assert ("pause", 1, "failed", "queue_reserved") in await attempts(platform, name)


async def test_what_a_model_planned_does_not_reach_another_run(platform: Stack) -> None:
    _, other = await victim(platform)
    name = unique("planner")
    await platform.store({**PLANNER, "name": name})
    plan = {"steps": {"read": calling("finish", "collaborations", collaboration=other)}}
    error = await failure(await platform.start(name, {"plan": plan}, name))
    assert error.type == "plan_invalid" and "queue_reserved" not in error.message
    assert "/steps/work" not in error.message and "/steps/read/activity" in error.message


def arguments() -> dict[str, type | None]:
    """Every activity of the house and the type of its argument."""
    found: dict[str, type | None] = {}
    for module in pkgutil.walk_packages(activities.__path__, "activities."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            for _, function in inspect.getmembers(kind, inspect.isfunction):
                if name := getattr(getattr(function, "__temporal_activity_definition", None), "name", None):
                    hints = typing.get_type_hints(function)
                    hints.pop("return", None)
                    found[name] = next(iter(hints.values()), None)
    return found


OF_THE_PLATFORM = {
    "archive_tokens": "projections",
    "close_ended": "projections",
    "collect_outcomes": "learning",
    "due_to_learn": "learning",
    "end_training": "learning",
    "judge_training": "learning",
    "look_at_rollouts": "learning",
    "look_at_trials": "projections",
    "optimize_prompt": "collaborations",
    "project": "projections",
    "reconcile_calls": "projections",
    "register_checkpoint": "learning",
    "train_router": "learning",
    "verify_copies": "projections",
}


def test_every_activity_belongs_to_a_run_or_to_the_platform() -> None:
    """The list of doors: an activity whose argument does not name its run is the platform's own."""
    unbound = {name for name, kind in arguments().items() if kind not in get_args(RunBound)}
    assert unbound == set(OF_THE_PLATFORM)


def forged(kind: type, run_id: str, workflow_id: str, tenant: str = "default") -> Any:
    """A request of the type for somebody's run."""
    step = steps.StepRequest(run_id, tenant, "say", f"00-{'1' * 32}-{'2' * 16}-01")
    match kind:
        case steps.StepRequest:
            return step
        case runs.PinRequest:
            return runs.PinRequest(workflow_id, run_id, "victim", {}, tenant, None, None)
        case steps.SegmentRequest:
            return steps.SegmentRequest(run_id, tenant, step.traceparent, "", ["say"], [], [])
        case runs.Finish:
            return runs.Finish(run_id, tenant, step.traceparent, "completed")
        case runs.SteerOrder:
            return runs.SteerOrder(run_id, tenant, step.traceparent, "pause", runs.Steer())
        case steps.ItemEnd:
            return steps.ItemEnd(step, 0)
        case steps.CaughtFailure:
            return steps.CaughtFailure(step, 0, "x", "x")
        case steps.OwnActivityReturn:
            return steps.OwnActivityReturn(step, str(uuid.uuid4()))
        case people.DecisionRecord:
            return people.DecisionRecord(step, people.Decision("say", "approve", "user:ada"))
        case runs.ChildEnd:
            return runs.ChildEnd(step, run_id)
        case runs.ChildFailure:
            return runs.ChildFailure(step, "x", "x")
    raise AssertionError(f"no forged request for {kind}")


@workflow.defn(name="attack")
class Attack:
    """What somebody who reaches Temporal can run: any activity, on any queue, with any argument."""

    @workflow.run
    async def run(self, calls: list[tuple[str, str, list[Any]]]) -> dict[str, str]:
        found = {}
        for name, queue, args in calls:
            try:
                found[name] = str(
                    await workflow.execute_activity(
                        name,
                        args=args,
                        task_queue=queue,
                        start_to_close_timeout=timedelta(seconds=20),
                        retry_policy=RetryPolicy(maximum_attempts=1),
                    )
                )
            except ActivityError as error:
                cause = error.cause
                found[name] = str(cause.type) if isinstance(cause, ApplicationError) else repr(cause)
        return found


async def attack(on: Stack, calls: list[tuple[str, str, list[Any]]], id: str) -> dict[str, str]:
    queue = unique("attacker")
    async with Worker(
        on.client, task_queue=queue, workflows=[Attack], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        found: dict[str, str] = await on.client.execute_workflow("attack", calls, id=id, task_queue=queue)
        return found


def queue_of(name: str) -> str:
    return "memory" if name == "recall" else OF_THE_PLATFORM.get(name, "collaborations")


async def test_no_activity_works_for_a_workflow_that_is_not_the_run(platform: Stack) -> None:
    id, other = await victim(platform)
    kinds = arguments()
    calls = []
    for name, kind in kinds.items():
        of_run = kind is not None and name not in OF_THE_PLATFORM
        calls.append((name, queue_of(name), [forged(kind, other, id)] if of_run and kind else []))
    # Also under the id of the run itself, which has ended.
    for own in (unique("attack"), id):
        assert await attack(platform, calls, own) == dict.fromkeys(kinds, "caller_foreign")


async def test_no_activity_works_for_another_tenant(platform: Stack) -> None:
    """A run's own workflow names its own run; a tenant that is not the run's is refused all the same."""
    id, other = await victim(platform)
    callers = CallerInterceptor(platform.engine, platform.client)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=id, workflow_run_id=other)
    request = steps.StepRequest(other, "somebody-else", "say", "")
    with pytest.raises(Refused, match="tenant"):
        await environment.run(callers.check, request)
    await environment.run(callers.check, steps.StepRequest(other, "default", "say", ""))


async def test_a_workflow_failure_tells_nothing_of_the_other_run(platform: Stack) -> None:
    id, other = await victim(platform)
    read = calling("finish", "collaborations", collaboration=other)
    name = await stored(platform, {"steps": {"read": read}})
    handle = await platform.start(name, {}, name)
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert "42" not in str(caught.value.cause) and id not in str(caught.value.cause)
