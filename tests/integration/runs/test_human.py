"""Questions to people in Postgres, activity by activity; and through the HTTP door into a waiting run."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.people.questions import HumanActivity
from api.app import create_app
from db.engine import transaction
from db.runs import people
from schema.errors import FacilitairError, NotFound
from schema.temporal.people import Decision, DecisionRecord, QuestionState
from schema.temporal.steps import StepEnd, StepRequest
from tests.support.cli import facilitair
from tests.support.runs import begin
from tests.support.stack import Stack

DAY = 86_400.0
STEP: dict[str, Any] = {
    "kind": "human",
    "title": "Ship ${input.what}?",
    "show": {"diff": "${input.diff}", "note": "by ${run.name}"},
    "actions": [{"id": "approve"}, {"id": "reject", "requires": ["reason"]}, {"id": "edit", "edits": "diff"}],
    "form": {"type": "object", "properties": {"reason": {"type": "string"}}},
    "assignees": ["user:ada", "user:bob", "user:eve"],
    "remind_after": "24h",
    "timeout": "72h",
}


@dataclass
class QuestionStep:
    """One run's step that asks, and the activities around it as its workflow would call them."""

    engine: AsyncEngine
    request: StepRequest
    calls: int = 0

    async def call(self, name: str, argument: Any = None, *, again: bool = False) -> Any:
        """`again`: the same activity once more, as after a crash before its result was recorded."""
        self.calls += not again
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, activity_id=str(self.calls))
        activity: Callable[[Any], Awaitable[Any]] = getattr(HumanActivity(self.engine), name)
        return await environment.run(activity, argument or self.request)

    async def ask(self) -> QuestionState:
        name = "ask_budget" if self.request.purpose else "ask"
        asked: QuestionState = await self.call(name)
        return asked

    async def decide(self, action: str, actor: str = "user:ada", **more: Any) -> QuestionState:
        decision = Decision(self.request.path, action, actor, **more)
        asked: QuestionState = await self.call("record_decision", DecisionRecord(self.request, decision))
        return asked

    async def refuses(self, action: str, actor: str = "user:ada", **more: Any) -> str:
        with pytest.raises(FacilitairError) as caught:
            await self.decide(action, actor, **more)
        return caught.value.code

    async def times_out(self) -> None:
        with pytest.raises(FacilitairError) as caught:
            await self.call("expire")
        assert caught.value.code == "human_timeout"

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]

    async def output(self) -> Any:
        [(status, output)] = await self.rows("SELECT status, output FROM agent_executions")
        assert status == "completed"
        return output

    async def events(self) -> list[str]:
        query = "SELECT type FROM outbox WHERE type LIKE 'Human%' ORDER BY seq"
        return [row[0].removeprefix("Human") for row in await self.rows(query)]

    async def status(self) -> str:
        [(status,)] = await self.rows(f"SELECT status FROM human_tasks WHERE path = '{self.request.path}'")
        return str(status)


async def question(
    engine: AsyncEngine, step: dict[str, Any] | None = None, **definition: Any
) -> QuestionStep:
    document = {"name": "ship", "steps": {"approve": STEP | (step or {})}} | definition
    given = {"what": "it", "diff": ["old"]}
    return QuestionStep(engine, await begin(engine, document, step="approve", input=given))


async def test_a_question_is_asked_once_and_shows_what_it_should(engine: AsyncEngine) -> None:
    asking = await question(engine)
    asked = await asking.ask()
    assert asked.remind_in is not None and DAY - 60 < asked.remind_in <= DAY
    assert asked.due_in is not None and 3 * DAY - 60 < asked.due_in <= 3 * DAY
    [(id,)] = await asking.rows("SELECT id::text FROM human_tasks")
    assert replace(asked, remind_in=None, due_in=None) == QuestionState(
        task=id,
        actions=[
            {"id": "approve", "requires": [], "edits": None},
            {"id": "reject", "requires": ["reason"], "edits": None},
            {"id": "edit", "requires": [], "edits": "diff"},
        ],
        form=STEP["form"],
        assignees=["user:ada", "user:bob", "user:eve"],
    )
    again = await asking.ask()
    assert again.due_in is not None and again.due_in <= asked.due_in
    show = {"diff": ["old"], "note": "by ship"}
    assert await asking.rows("SELECT path, title, show, status FROM human_tasks") == [
        ("approve", "Ship it?", show, "open")
    ]
    assert await asking.rows("SELECT kind, agent_name, status, attempt, input FROM agent_executions") == [
        ("human", "user:ada, user:bob, user:eve", "running", 1, show)
    ]
    assert await asking.events() == ["Asked"]


async def test_one_decision_completes_the_step(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    asked = await asking.decide("reject", form={"reason": "late"})
    assert asked.ended == StepEnd("approve", "completed")
    assert (asked.remind_in, asked.due_in) == (None, None)
    output = await asking.output()
    made = output.pop("decisions")
    assert output == {"decision": "reject", "by": ["user:ada"], "form": {"reason": "late"}, "value": None}
    assert [(one["actor"], one["action"], one["form"]) for one in made] == [
        ("user:ada", "reject", {"reason": "late"})
    ]
    assert (await asking.ask()).ended == asked.ended
    assert await asking.events() == ["Asked", "Decided"]
    assert await asking.rows("SELECT actor, action, subject FROM audit_log WHERE action LIKE 'human%'") == [
        ("user:ada", "human.decide", f"wf-{asking.request.collaboration}/approve")
    ]
    assert await asking.refuses("approve", "user:bob") == "human_already_decided"
    await asking.call("withdraw")
    assert await asking.status() == "decided"


async def test_what_a_person_edits_replaces_what_was_shown(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    await asking.decide("edit", edited=["new\0"])
    assert (await asking.output())["value"] == ["new"]
    assert await asking.rows("SELECT original, edited FROM human_decisions") == [(["old"], ["new"])]


async def test_an_edit_without_a_change_keeps_what_was_shown(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    await asking.decide("edit")
    assert (await asking.output())["value"] == ["old"]


async def test_decisions_are_checked_again_where_they_are_recorded(engine: AsyncEngine) -> None:
    asking = await question(engine, {"approvals": 2})
    assert await asking.refuses("approve") == "human_not_waiting"
    await asking.ask()
    assert await asking.refuses("shrug") == "human_action_unknown"
    assert await asking.refuses("approve", "user:mallory") == "human_not_assigned"
    assert await asking.refuses("reject") == "human_form_invalid"
    assert await asking.refuses("approve", form={"reason": 1}) == "human_form_invalid"
    assert await asking.refuses("approve", edited=1) == "human_form_invalid"
    await asking.decide("approve")
    assert await asking.refuses("reject", form={"reason": "no"}) == "human_already_decided"
    assert await asking.rows("SELECT actor, action FROM human_decisions") == [("user:ada", "approve")]


async def test_two_of_three_must_agree(engine: AsyncEngine) -> None:
    asking = await question(engine, {"approvals": 2})
    await asking.ask()
    first = await asking.decide("approve", form={"reason": "a"})
    assert (first.ended, first.decided_by) == (None, ["user:ada"])
    second = await asking.decide("reject", "user:bob", form={"reason": "b"})
    assert (second.ended, second.decided_by) == (None, ["user:ada", "user:bob"])
    third = await asking.decide("approve", "user:eve", form={"reason": "e"})
    assert third.ended == StepEnd("approve", "completed")
    output = await asking.output()
    assert (output["decision"], output["by"]) == ("approve", ["user:ada", "user:eve"])
    assert output["form"] == {"reason": "e"}
    assert [one["actor"] for one in output["decisions"]] == ["user:ada", "user:bob", "user:eve"]
    assert await asking.events() == ["Asked", "Decided", "Decided", "Decided"]


async def test_the_wait_ends_when_no_action_can_have_enough(engine: AsyncEngine) -> None:
    asking = await question(engine, {"approvals": 3})
    await asking.ask()
    assert (await asking.decide("reject", form={"reason": "no"})).ended is None
    assert (await asking.decide("approve", "user:bob")).ended == StepEnd("approve", "completed")
    output = await asking.output()
    made = output.pop("decisions")
    assert output == {"decision": None, "by": [], "form": {}, "value": None}
    assert [one["action"] for one in made] == ["reject", "approve"]


async def test_a_decision_that_was_recorded_before_a_crash_counts_once(engine: AsyncEngine) -> None:
    asking = await question(engine, {"approvals": 2})
    await asking.ask()
    assert await asking.decide("approve") is not None
    again = await asking.decide("approve")
    assert (again.ended, again.decided_by) == (None, ["user:ada"])
    closed = await asking.decide("approve", "user:bob")
    assert (
        (await asking.decide("approve", "user:bob")).ended == closed.ended == StepEnd("approve", "completed")
    )
    assert len(await asking.rows("SELECT id FROM human_decisions")) == 2


async def test_decisions_at_the_same_time_are_taken_one_after_the_other(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    found = await asyncio.gather(
        *(asking.decide("approve", f"user:{name}") for name in ("ada", "bob", "eve")), return_exceptions=True
    )
    assert sum(isinstance(one, QuestionState) and one.ended is not None for one in found) == 1
    refusals = [one.code for one in found if isinstance(one, FacilitairError)]
    assert refusals == ["human_already_decided"] * 2
    assert len((await asking.output())["decisions"]) == 1


async def test_people_are_reminded_again_until_the_time_has_passed(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    first = await asking.call("remind")
    assert first.remind_in == pytest.approx(DAY, abs=60)
    assert first.due_in == pytest.approx(2 * DAY, abs=60)
    again = await asking.call("remind", again=True)
    assert again.due_in == pytest.approx(2 * DAY, abs=60)
    second = await asking.call("remind")
    # The third would come when the time has passed.
    assert second.remind_in is None
    assert second.due_in == pytest.approx(DAY, abs=60)
    assert await asking.events() == ["Asked", "Reminded", "Reminded"]


async def test_a_question_that_nobody_answers_fails_the_step(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    await asking.times_out()
    await asking.times_out()
    assert await asking.status() == "expired"
    assert await asking.rows("SELECT status, error_code FROM agent_executions") == [
        ("failed", "human_timeout")
    ]
    with pytest.raises(FacilitairError, match="in time"):
        await asking.ask()


async def test_others_are_asked_when_nobody_answers(engine: AsyncEngine) -> None:
    asking = await question(
        engine, {"on_timeout": "escalate", "escalate_to": ["user:boss"], "assignees": ["user:ada"]}
    )
    await asking.ask()
    escalated = await asking.call("expire")
    assert (escalated.assignees, escalated.ended) == (["user:boss"], None)
    assert escalated.due_in == pytest.approx(3 * DAY, abs=60)
    assert escalated.remind_in == pytest.approx(DAY, abs=60)
    # Its result was lost: done again, it is not the second time that nobody answered.
    assert (await asking.call("expire", again=True)).ended is None
    assert await asking.refuses("approve") == "human_not_assigned"
    assert (await asking.decide("approve", "user:boss")).ended == StepEnd("approve", "completed")
    assert await asking.events() == ["Asked", "Escalated", "Decided"]


async def test_it_is_escalated_once(engine: AsyncEngine) -> None:
    asking = await question(engine, {"on_timeout": "escalate", "escalate_to": ["user:boss"]})
    await asking.ask()
    await asking.call("expire")
    await asking.times_out()
    assert await asking.status() == "expired"


async def test_an_action_may_stand_for_no_answer(engine: AsyncEngine) -> None:
    asking = await question(engine, {"on_timeout": "approve", "approvals": 3})
    await asking.ask()
    await asking.decide("approve")
    assert (await asking.call("expire")).ended == StepEnd("approve", "completed")
    assert (await asking.call("expire")).ended == StepEnd("approve", "completed")
    output = await asking.output()
    assert (output["decision"], output["by"]) == ("approve", ["user:ada", "timeout"])
    assert await asking.events() == ["Asked", "Decided", "Decided"]


async def test_a_cancelled_run_asks_no_longer(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.call("withdraw")
    await asking.ask()
    await asking.call("withdraw")
    await asking.call("withdraw")
    assert await asking.status() == "cancelled"
    assert await asking.rows("SELECT status, error_code FROM agent_executions") == [("failed", "cancelled")]
    assert await asking.refuses("approve") == "human_not_waiting"


async def budget_question(engine: AsyncEngine) -> QuestionStep:
    budget = {"usd": 2, "tokens": 1_000, "on_exceed": "ask", "assignees": ["group:finance"]}
    asking = await question(engine, budget=budget)
    asking.request = replace(asking.request, purpose="budget")
    return asking


LIMITS = "SELECT limit_usd::float, limit_tokens FROM spending"


async def test_people_may_allow_more_money(engine: AsyncEngine) -> None:
    asking = await budget_question(engine)
    asked = await asking.ask()
    assert [one["id"] for one in asked.actions] == ["approve", "reject"]
    assert asked.assignees == ["group:finance"]
    [(path, show)] = await asking.rows("SELECT path, show FROM human_tasks")
    assert path == "approve~budget"
    assert show == {
        "step": "approve",
        "limit_usd": 2.0,
        "spent_usd": 0.0,
        "reserved_usd": 0.0,
        "limit_tokens": 1000,
        "spent_tokens": 0,
        "reserved_tokens": 0,
    }
    assert await asking.refuses("approve", "user:ada") == "human_not_assigned"
    finance: dict[str, Any] = {"actor": "user:ada", "groups": ["finance"]}
    assert await asking.refuses("approve", form={"usd": "much"}, **finance) == "human_form_invalid"
    done = await asking.decide("approve", form={"usd": 0.5}, **finance)
    assert done.ended == StepEnd("approve", "completed")
    assert await asking.rows(LIMITS) == [(2.5, 1000)]
    first = {"form": {"usd": 0.5}, "task": asked.task, **finance}
    assert (await asking.decide("approve", form={"usd": 0.5}, **finance)).ended == done.ended
    assert (await asking.decide("approve", **first)).ended == done.ended
    assert await asking.rows(LIMITS) == [(2.5, 1000)]

    # Spent again: the same question anew, beside the one that was answered.
    assert (await asking.ask()).ended is None
    anew = await asking.ask()
    assert anew.ended is None and anew.again and anew.task != asked.task
    # The first decision once more is for the first question, and whoever names none may mean that one.
    again = await asking.decide("approve", **first)
    assert (again.ended, again.task) == (done.ended, asked.task)
    assert await asking.refuses("approve", task=asked.task, **finance) == "human_already_decided"
    assert await asking.refuses("approve", **finance) == "human_question_unnamed"
    assert await asking.rows(LIMITS) == [(2.5, 1000)]
    await asking.decide("approve", task=anew.task, **finance)
    assert await asking.rows(LIMITS) == [(4.5, 2000)]
    assert (await asking.ask()).ended is None
    assert await asking.rows("SELECT path, status FROM human_tasks ORDER BY opened_at") == [
        ("approve~budget~1", "decided"),
        ("approve~budget~2", "decided"),
        ("approve~budget", "open"),
    ]
    assert await asking.rows("SELECT count(*) FROM agent_executions") == [(0,)]


async def test_people_may_refuse_more_money(engine: AsyncEngine) -> None:
    asking = await budget_question(engine)
    await asking.ask()
    rejected = StepEnd("approve", "rejected")
    assert (await asking.decide("reject", groups=["finance"])).ended == rejected
    assert (await asking.ask()).ended == rejected
    assert await asking.rows(LIMITS) == [(2.0, 1000)]


async def test_no_answer_is_no_money(engine: AsyncEngine) -> None:
    asking = await budget_question(engine)
    await asking.ask()
    assert (await asking.call("expire")).ended == StepEnd("approve", "rejected")
    assert (await asking.ask()).ended == StepEnd("approve", "rejected")
    assert await asking.status() == "expired"


async def test_questions_are_listed_oldest_first_for_those_who_may_answer(engine: AsyncEngine) -> None:
    asking = await question(engine)
    await asking.ask()
    other = await question(engine, {"assignees": []}, name="open-to-all")
    await other.ask()

    async def listed(**how: Any) -> list[str]:
        async with transaction(engine) as connection:
            return [one.name for one in await people.page(connection, "default", **{"status": "open"} | how)]

    assert await listed() == ["ship", "open-to-all"]
    assert await listed(assignees=["user:bob", "group:x"]) == ["ship", "open-to-all"]
    assert await listed(assignees=["user:mallory"]) == ["open-to-all"]
    assert await listed(collaboration=f"wf-{asking.request.collaboration}") == ["ship"]
    assert await listed(collaboration="nope") == []
    async with transaction(engine) as connection:
        first, second = await people.page(connection, "default", status="open")
        whole = await people.find(connection, "default", first.id)
        assert whole.show == {"diff": ["old"], "note": "by ship"}
        for tenant, id in (("other", first.id), ("default", uuid.uuid4())):
            with pytest.raises(NotFound, match="found no question"):
                await people.find(connection, tenant, id)
    assert await listed(after=(first.opened_at, first.id)) == ["open-to-all"]
    assert await listed(after=(second.opened_at, second.id)) == []
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE collaborations SET status = 'failed'"))
    assert await listed() == []
    async with transaction(engine) as connection:
        assert await people.page(connection, "other", status="open") == []


# -- through the door, into a run that waits -----------------------------------------------------------------


@pytest.fixture
async def http(platform: Stack) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(platform.settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1/v1", timeout=60
        ) as client,
    ):
        yield client


async def waiting(
    platform: Stack, http: httpx.AsyncClient, step: dict[str, Any], **definition: Any
) -> tuple[WorkflowHandle[Any, Any], dict[str, Any]]:
    """A run that asks, and its question."""
    name = f"ship-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": name, "steps": {"approve": STEP | step}} | definition)
    handle = await platform.start(name, {"what": "it", "diff": ["old"]}, name)
    return handle, await open_question(http, name)


async def open_question(http: httpx.AsyncClient, run: str) -> dict[str, Any]:
    for _ in range(600):
        if found := (await http.get("/tasks", params={"collaboration": run})).json()["items"]:
            return dict(found[0])
        await asyncio.sleep(0.05)
    raise AssertionError(f"{run} asks nothing")


async def post(http: httpx.AsyncClient, task: dict[str, Any], **decision: Any) -> httpx.Response:
    return await http.post(f"/tasks/{task['id']}/decisions", json=decision)


async def test_a_decision_over_http_lets_the_run_go_on(platform: Stack, http: httpx.AsyncClient) -> None:
    handle, task = await waiting(platform, http, {"assignees": ["user:ada", "group:leads"]})
    assert (task["title"], task["path"], task["status"]) == ("Ship it?", "approve", "open")
    shown = (await http.get(f"/tasks/{task['id']}")).json()
    assert (shown["show"], shown["decisions"]) == ({"diff": ["old"], "note": f"by {task['name']}"}, [])

    for code, status, decision in (
        ("human_action_unknown", 422, {"action": "shrug", "actor": "user:ada"}),
        ("human_not_assigned", 422, {"action": "approve"}),
        ("human_form_invalid", 422, {"action": "reject", "actor": "user:ada"}),
        ("request_invalid", 422, {"action": "approve", "actor": "ada"}),
        ("request_invalid", 422, {}),
    ):
        answer = await post(http, task, **decision)
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    answer = await post(
        http, task, action="edit", edited=["new"], actor="user:eve", groups=["leads"], form={"reason": "r"}
    )
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["decided_by"]) == ("decided", ["user:eve"])
    made = answer.json()["decisions"][0]
    assert (made["original"], made["edited"]) == (["old"], ["new"])
    result = await handle.result()
    assert (result["decision"], result["by"], result["value"]) == ("edit", ["user:eve"], ["new"])

    late = await post(http, task, action="approve", actor="user:ada")
    assert (late.status_code, late.json()["code"]) == (409, "human_already_decided")
    assert "user:eve decided 'edit' at 20" in late.json()["detail"]
    assert (await http.get("/tasks", params={"collaboration": handle.id})).json()["items"] == []
    decided = (await http.get("/tasks", params={"collaboration": handle.id, "status": "decided"})).json()
    assert [one["id"] for one in decided["items"]] == [task["id"]]
    async with platform.engine.connect() as connection:
        audited = await connection.execute(
            text("SELECT actor, action FROM audit_log WHERE subject = :of ORDER BY id"),
            {"of": f"{handle.id}/approve"},
        )
        assert [tuple(row) for row in audited] == [
            ("local", "human.speak_for"),
            ("user:eve", "human.decide"),
            ("local", "human.speak_for"),
        ]


async def test_several_people_and_one_of_them_twice(platform: Stack, http: httpx.AsyncClient) -> None:
    handle, task = await waiting(platform, http, {"approvals": 2})
    first = await post(http, task, action="approve", actor="user:ada")
    assert (first.json()["status"], first.json()["decided_by"]) == ("open", ["user:ada"])
    twice = await post(http, task, action="approve", actor="user:ada")
    assert (twice.status_code, twice.json()["decided_by"]) == (200, ["user:ada"])
    other = await post(http, task, action="edit", actor="user:ada")
    assert (other.status_code, other.json()["code"]) == (409, "human_already_decided")
    assert (await post(http, task, action="approve", actor="user:bob")).json()["status"] == "decided"
    assert (await handle.result())["by"] == ["user:ada", "user:bob"]


async def test_of_two_people_who_decide_at_once_the_second_is_told_at_once(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, task = await waiting(platform, http, {})
    async with asyncio.timeout(5):
        made = await asyncio.gather(
            *(post(http, task, action="approve", actor=f"user:{name}") for name in ("ada", "bob"))
        )
    assert sorted(answer.status_code for answer in made) == [200, 409]
    taken, late = sorted(made, key=lambda answer: answer.status_code)
    [by] = taken.json()["decided_by"]
    assert late.json()["code"] == "human_already_decided"
    assert f"{by} decided 'approve' at " in late.json()["detail"]
    assert (await handle.result())["by"] == [by]


async def test_the_same_decision_many_times_is_one_decision_with_one_answer(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, task = await waiting(platform, http, {})
    decision = {"action": "reject", "actor": "user:ada", "form": {"reason": "late"}}
    made = await asyncio.gather(*(post(http, task, **decision) for _ in range(4)))
    again = await post(http, task, **decision)
    assert {answer.status_code for answer in (*made, again)} == {200}
    assert {json.dumps(answer.json()["decisions"]) for answer in (*made, again)} == {
        json.dumps(again.json()["decisions"])
    }
    assert len((await handle.result())["decisions"]) == 1


async def test_temporals_updates_name_the_question_by_its_id_or_path(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, task = await waiting(platform, http, {"approvals": 2})
    by_id = {"task": task["id"], "action": "approve", "actor": "user:ada"}
    for _ in range(2):
        assert await handle.execute_update("decide", by_id) == "waiting for others"
    late = [{"actor": "user:bob", "task": str(uuid.uuid4())}, {"actor": "user:ada", "path": "approve"}]
    for wrong, code in zip(late, ("human_not_waiting", "human_already_decided"), strict=True):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("decide", {"action": "edit", **wrong})
        assert isinstance(caught.value.cause, ApplicationError) and caught.value.cause.type == code
    by_path = {"path": "approve", "action": "approve", "actor": "user:bob"}
    assert await handle.execute_update("decide", by_path) == "decided"
    assert (await handle.result())["by"] == ["user:ada", "user:bob"]


async def test_a_double_click_allows_more_money_once(
    platform: Stack, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The first approval is not enough for the step, so that it is asked again at once."""
    name = f"costly-{uuid.uuid4().hex[:8]}"
    write = {"kind": "agent", "agent": "coder", "prompt": "Write a sorting function."}
    budget = {"tokens": 1, "on_exceed": "ask"}
    await platform.store(
        {"name": name, "agents": {"coder": {"role": "coder"}}, "budget": budget, "steps": {"write": write}}
    )
    handle = await platform.start(name, {}, name)
    task = await open_question(http, name)
    approve = {"action": "approve", "form": {"tokens": 1}, "actor": "user:ada"}
    answers = await asyncio.gather(*(post(http, task, **approve) for _ in range(3)))
    while (anew := await open_question(http, name))["id"] == task["id"]:
        await asyncio.sleep(0.05)
    answers.append(await post(http, task, **approve))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert (anew["path"], anew["asking"]) == ("write~budget", 2)
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update("decide", approve | {"path": "write~budget"})
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "human_question_unnamed" and anew["id"] in caught.value.cause.message
    await platform.wait_ready("api", timeout_seconds=60)
    url = platform.supervisor.addresses["api"]
    done = await facilitair(tmp_path, "decide", handle.id, "approve", FACILITAIR_URL=url)
    assert done.code == 2 and "human_question_unnamed" in done.stderr and anew["id"] in done.stderr
    async with platform.engine.connect() as connection:
        limits = await connection.execute(
            text("SELECT limit_tokens FROM spending WHERE subject = :run"),
            {"run": handle.first_execution_run_id},
        )
        assert limits.scalars().all() == [2]
    await handle.cancel()


async def test_a_plain_temporal_client_may_decide_and_is_refused_without_a_trace(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, task = await waiting(platform, http, {})
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update("decide", Decision("approve", "approve", "user:mallory"))
    assert "expected one of user:ada, user:bob, user:eve" in str(caught.value.cause)
    kinds = {event.WhichOneof("attributes") async for event in handle.fetch_history_events()}
    assert "workflow_execution_update_accepted_event_attributes" not in kinds
    decision = {"path": "approve", "action": "approve", "actor": "user:ada"}
    assert await handle.execute_update("decide", decision) == "decided"
    assert (await handle.result())["decision"] == "approve"
    assert (await http.get(f"/tasks/{task['id']}")).json()["status"] == "decided"


async def test_a_cancelled_run_withdraws_its_question(platform: Stack, http: httpx.AsyncClient) -> None:
    handle, task = await waiting(platform, http, {})
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert (await http.get(f"/tasks/{task['id']}")).json()["status"] == "cancelled"
    assert (await post(http, task, action="approve", actor="user:ada")).json()["code"] == "human_not_waiting"


async def test_a_run_that_was_ended_in_temporal_takes_no_decision(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, task = await waiting(platform, http, {})
    await handle.terminate()
    answer = await post(http, task, action="approve", actor="user:ada")
    assert (answer.status_code, answer.json()["code"]) == (409, "human_not_waiting")


async def test_a_step_whose_people_do_not_answer_is_caught(platform: Stack, http: httpx.AsyncClient) -> None:
    step = {"timeout": "3s", "remind_after": None, "catch": [{"errors": ["human_timeout"], "value": "late"}]}
    handle, task = await waiting(platform, http, step)
    assert await handle.result() == "late"
    assert (await http.get(f"/tasks/{task['id']}")).json()["status"] == "expired"


async def test_a_step_whose_people_do_not_answer_fails_the_run(
    platform: Stack, http: httpx.AsyncClient
) -> None:
    handle, _ = await waiting(platform, http, {"timeout": "3s"})
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "human_timeout"


async def test_who_is_asked_next_decides(platform: Stack, http: httpx.AsyncClient) -> None:
    step = {"timeout": "2s", "remind_after": None, "on_timeout": "escalate", "escalate_to": ["user:boss"]}
    handle, task = await waiting(platform, http, step)
    while not (await http.get(f"/tasks/{task['id']}")).json()["escalated"]:
        await asyncio.sleep(0.05)
    # A moment passes until the run itself knows; till then it refuses.
    while (answer := await post(http, task, action="approve", actor="user:boss")).status_code != 200:
        assert answer.json()["code"] == "human_not_assigned"
    assert (await handle.result())["by"] == ["user:boss"]


async def test_questions_in_a_map_are_decided_one_by_one(platform: Stack, http: httpx.AsyncClient) -> None:
    asks = {"kind": "human", "title": "${item}?"}
    body = {"steps": {"ask": asks}, "output": "${item}: ${steps.ask.output.decision}"}
    each = {"kind": "map", "over": "['a', 'b']", "max_items": 2, "body": body}
    name = f"each-{uuid.uuid4().hex[:8]}"
    await platform.store({"name": name, "steps": {"each": each}})
    handle = await platform.start(name, {}, name)
    decided: dict[str, str] = {}
    while len(decided) < 2:
        task = await open_question(http, name)
        action = "reject" if task["title"] == "a?" else "approve"
        assert (await post(http, task, action=action)).status_code == 200
        decided[task["path"]] = action
    assert decided == {"each[0].ask": "reject", "each[1].ask": "approve"}
    assert await handle.result() == ["a: reject", "b: approve"]


@pytest.mark.parametrize("action", ["approve", "reject"])
async def test_a_run_asks_for_more_money(platform: Stack, http: httpx.AsyncClient, action: str) -> None:
    name = f"costly-{uuid.uuid4().hex[:8]}"
    write = {"kind": "agent", "agent": "coder", "prompt": "Write a sorting function."}
    await platform.store(
        {
            "name": name,
            "agents": {"coder": {"role": "coder"}},
            "budget": {"tokens": 1, "on_exceed": "ask", "assignees": ["group:finance"]},
            "steps": {"write": write},
        }
    )
    handle = await platform.start(name, {}, name)
    task = await open_question(http, name)
    assert task["path"] == "write~budget"
    more = {"form": {"tokens": 100_000}} if action == "approve" else {}
    answer = await post(http, task, action=action, groups=["finance"], **more)
    assert answer.status_code == 200, answer.text
    if action == "approve":
        assert isinstance(await handle.result(), str)
    else:
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "budget_exceeded"


async def test_the_commands(platform: Stack, http: httpx.AsyncClient, tmp_path: Path) -> None:
    await asyncio.to_thread(platform.supervisor.wait_ready, "api", timeout_seconds=60)
    handle, task = await waiting(platform, http, {"approvals": 2})

    async def run(*words: str) -> tuple[int, str]:
        done = await facilitair(tmp_path, *words, FACILITAIR_URL=platform.supervisor.addresses["api"])
        return done.code, done.stdout + done.stderr

    code, listed = await run("tasks", "--run", handle.id)
    assert code == 0
    assert task["id"] in listed and "Ship it?" in listed and "approve, reject, edit" in listed
    code, shown = await run("tasks", "show", task["id"])
    assert code == 0
    assert "Ship it?" in shown and '"old"' in shown and "2 must decide the same" in shown
    code, told = await run("decide", handle.id, "approve", "--as", "mallory")
    assert code == 2 and "human_not_assigned" in told
    code, told = await run("decide", handle.id, "edit", "--as", "ada", "--edit", "no json")
    assert code == 2 and "'diff' is not text" in told
    edited = tmp_path / "edited.json"
    edited.write_text('["new"]')
    code, told = await run("decide", handle.id, "edit", "--as", "user:ada", "--edit", f"@{edited}")
    assert (code, told) == (0, "Ship it?  edit  waiting for others (1 so far)\n")
    code, told = await run("decide", task["id"], "edit", "--as", "bob", "-f", "reason=fine", "--json")
    assert code == 0 and json.loads(told)["status"] == "decided"
    result = await handle.result()
    assert (result["value"], result["form"]) == (["new"], {"reason": "fine"})
    code, told = await run("decide", handle.id, "approve")
    assert code == 2 and "found 0 open questions" in told
