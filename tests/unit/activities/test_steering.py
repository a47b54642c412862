"""What may be said to a run, and how it stands in a prompt."""

from typing import Any

import pytest

from activities.agent import prompts
from activities.runs.feedback import agent_of, model_of, told
from db.runs.control import Control, FeedbackNote
from gateway.request import Message
from schema.language.catalogue import BUILT_IN
from schema.language.steps import Agent, AgentStep, Route
from schema.rules.steering import fault_of
from schema.temporal.runs import Steer
from schema.temporal.steps import StepRequest

AGENT = Agent(model="openai/gpt-4o-mini", system="Be brief.", temperature=1)
STEP = AgentStep(kind="agent", agent="a", prompt="p")


def test_what_may_be_said_of_any_run() -> None:
    assert fault_of("pause", Steer()) is None
    assert fault_of("inject_feedback", Steer(text="x" * 20_000)) is None
    back = {"model": None, "temperature": 2, "max_output_tokens": 1, "system": "Be kind."}
    assert fault_of("adjust", Steer(changes=back)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "found no change"),
        ({"role": "coder"}, "found a change of 'role'"),
        ({"temperature": True}, "found 'True' for temperature"),
        ({"max_output_tokens": 0}, "found '0' for max_output_tokens"),
        ({"system": "x" * 100_001}, "for system"),
        ({"model": "nobody/model"}, "found the model 'nobody/model'"),
        ({"model": ""}, "found the model ''"),
    ],
)
def test_changes_that_cannot_be_meant(changes: dict[str, Any], said: str) -> None:
    fault = fault_of("adjust", Steer(changes=changes))
    assert fault is not None and said in fault.message


def test_feedback_stands_at_the_end_of_the_last_message() -> None:
    spoken = [Message("system", "s"), Message("user", "Do it.")]
    assert prompts.with_feedback(spoken, []) == spoken
    *before, last = prompts.with_feedback(spoken, ["One. ", "Two."])
    assert before == spoken[:1]
    assert last.role == "user"
    assert last.content.splitlines()[0] == "Do it."
    assert last.content.endswith(":\n\n1. One.\n\n2. Two.")


def test_feedback_is_for_whom_it_is_meant() -> None:
    said = [("x", None, None), ("y", "ask", None), ("z", "other", "a"), ("w", None, "b"), ("v", "ask", "a")]
    control = Control(feedback=[FeedbackNote(*one, "user:ada") for one in said])
    assert told("ask", "a", control) == ["x", "y", "v"]


def test_what_is_said_of_one_agent_counts_more() -> None:
    control = Control(changes={"": {"temperature": 0, "system": "S"}, "a": {"temperature": 0.5}})
    asked = agent_of(AGENT, STEP, control)
    assert (asked.temperature, asked.system, asked.model) == (0.5, "S", AGENT.model)


def test_a_person_chooses_the_model_before_the_router() -> None:
    request = StepRequest("", "", "ask", "", model="openai/routed")
    routed = Agent(model=Route(among=["openai/first"]))
    assert model_of(request, routed, STEP, Control(), BUILT_IN) == "openai/routed"
    person = Control(changes={"": {"model": "openai/chosen"}})
    assert model_of(request, routed, STEP, person, BUILT_IN) == "openai/chosen"
