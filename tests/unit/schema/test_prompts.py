"""What stored prompts say for a task, and what kind of work a text asks for."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from activities.agent import prompts
from activities.routing.tasks import task_type
from db.prompts.prompts import sha256_of
from db.prompts.trials import ChosenPrompt
from gateway.request import Message
from schema.language.catalogue import BUILT_IN, ROLE_DEFAULTS
from schema.language.prompts import PromptContent, TaskType
from schema.language.skills import SKILLS
from schema.language.steps import Agent, AgentStep

EASY = "Write a function that adds two numbers."
HARD = (
    "Design a distributed, fault tolerant transaction service: concurrent writers, real-time reads, "
    "encryption at rest, scalable to many regions, with consensus among its parts."
)
CONTENT = PromptContent(
    system="You are careful.",
    by_task={"code": "Code must run.", "review": "Name the line."},
    when_complex="Think step by step first.",
)


def _system(content: PromptContent | None, text: str, **agent: object) -> str:
    step = AgentStep(kind="agent", agent="a", prompt="${input.task}")
    chosen = ChosenPrompt(content, "careful@1") if content else None
    found = prompts.system(step, Agent.model_validate(agent), [], BUILT_IN, chosen, text)
    return found[0].content if found else ""


def test_what_a_stored_prompt_says_depends_on_the_task() -> None:
    model = {"model": "openai/gpt-4o-mini"}
    assert _system(CONTENT, EASY, **model) == "You are careful.\n\nCode must run."
    assert _system(CONTENT, "Review this: x = 1", **model) == "You are careful.\n\nName the line."
    # A chain of thought is paid for: only where the task is complex (S2-12).
    assert _system(CONTENT, HARD, **model) == "You are careful.\n\nThink step by step first."
    assert _system(CONTENT, "Say hello.", **model) == "You are careful."


def test_agents_without_a_stored_prompt_say_what_they_said_before() -> None:
    assert _system(None, HARD, role="coder") == ROLE_DEFAULTS["coder"].system
    assert _system(None, HARD, role="coder", system="Be brief.") == "Be brief."
    assert _system(None, HARD, model="openai/gpt-4o-mini") == ""


def test_a_stored_prompt_without_a_system_text_adds_to_the_role() -> None:
    content = PromptContent(system="", when_complex="Think first.")
    assert _system(content, HARD, role="coder") == f"{ROLE_DEFAULTS['coder'].system}\n\nThink first."


def test_the_instructions_of_skills_follow() -> None:
    name, skill = next(iter(SKILLS.items()))
    said = _system(CONTENT, "Say hello.", model="openai/gpt-4o-mini", skills=[name])
    assert said.startswith("You are careful.\n\n") and said.endswith(skill.instructions)


def test_examples_stand_before_the_prompt_as_earlier_answers() -> None:
    content = PromptContent.model_validate(
        {"system": "S", "examples": [{"input": "1+1", "output": "2"}, {"input": "2+2", "output": "4"}]}
    )
    assert prompts.examples(ChosenPrompt(content, "sums@1", UUID(int=1))) == [
        Message("user", "1+1"),
        Message("assistant", "2"),
        Message("user", "2+2"),
        Message("assistant", "4"),
    ]
    assert prompts.examples(None) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Review this function: def f(): pass", "review"),
        ("Find the bugs in this code", "review"),
        ("Write a Python function that parses dates", "code"),
        ("Fix what the review found in\ndef f(): pass", "code"),
        ("Implement a REST endpoint with tests", "code"),
        ("Write unit tests for the parser", "test"),
        ("Document the API", "document"),
        ("Summarize this report", "document"),
        ("Design the architecture of a chat service", "design"),
        ("Explain why the build is slow", "analysis"),
        ("Compare Postgres with MySQL", "analysis"),
        ("Write a haiku about rain", "other"),
        ("", "other"),
    ],
)
def test_the_kind_of_work_by_words(text: str, kind: TaskType) -> None:
    assert task_type(text) == kind


def test_where_the_words_say_nothing_the_role_does() -> None:
    assert task_type("x = 1", "reviewer") == "review"
    assert task_type("Write unit tests", "reviewer") == "test"
    assert task_type("x = 1", "poet") == "other"


def test_a_long_text_is_not_read_to_its_end() -> None:
    assert task_type(" " * 100_000 + "review this") == "other"


def test_equal_content_has_one_mark() -> None:
    plain = PromptContent(system="S")
    assert sha256_of(plain) == sha256_of(PromptContent(system="S", by_task={}, examples=[], when_complex=""))
    assert sha256_of(plain) != sha256_of(PromptContent(system="S "))
    one = PromptContent.model_validate({"system": "S", "by_task": {"code": "a", "test": "b"}})
    other = PromptContent.model_validate({"system": "S", "by_task": {"test": "b", "code": "a"}})
    assert sha256_of(one) == sha256_of(other)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"system": 1},
        {"system": "S", "by_task": {"poetry": "x"}},
        {"system": "S", "examples": [{"input": "a", "output": "b"}] * 9},
        {"system": "S", "unknown": ""},
        {"system": "x" * 100_001},
    ],
)
def test_content_that_is_none_is_refused(content: object) -> None:
    with pytest.raises(ValidationError):
        PromptContent.model_validate(content)
