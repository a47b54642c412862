"""What definitions may name, and what a tenant may add to it."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

from schema import hosts
from schema.errors import InvalidDefinition, Refused, StepError
from schema.language.catalogue import (
    BUILT_IN,
    MASTERS,
    RELATIONSHIPS,
    ROLE_DEFAULTS,
    Catalogue,
    ProviderKind,
    RoleDefault,
    TenantProvider,
    from_json,
)
from schema.language.skills import SKILLS, Skill
from schema.language.steps import NAME, Agent, AgentStep
from schema.language.tools import TOOLS
from schema.rules import planning
from schema.rules.answers import faults
from schema.rules.catalogue import looks_like_key, provider_problems, role_problems, skill_problems
from schema.rules.size import estimate
from schema.rules.steering import fault_of
from schema.rules.validate import validate
from schema.tables.definitions import providers
from schema.temporal.runs import Steer

ROOT = Path(__file__).resolve().parents[3]
CRITIC = RoleDefault("acme/llama-70b", "You are a critic.", "REVIEWED", skills=("house-style",))
MINE = BUILT_IN.with_own(
    {"critic": CRITIC, "coder": RoleDefault("openai/gpt-4o-mini", "Mine.", "IMPLEMENTED")},
    {"house-style": Skill("Our style.", "Write as we do.", ("text.diff",))},
    {"acme": TenantProvider("acme", "openai_compatible", "https://models.acme.example/v1", "acme-key")},
    {"tone": 3},
)


def definition(step: dict[str, Any] | None = None, /, **agent: Any) -> dict[str, Any]:
    ask = {"kind": "agent", "agent": "a", "prompt": "p", **(step or {})}
    return {"name": "x", "agents": {"a": agent}, "steps": {"ask": ask}}


def places(document: Any, catalogue: Catalogue = MINE) -> list[tuple[str, str]]:
    try:
        validate(document, catalogue=catalogue)
    except InvalidDefinition as error:
        return [(one.code, one.pointer) for one in error.problems]
    return []


# -- names in definitions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "agent",
    [
        {"role": "critic"},
        {"role": "reviewer", "skills": ["house-style", "security-review"], "tools": ["http"]},
        {
            "model": "acme/llama-70b",
            "fallback": ["openai/gpt-4", "acme/other"],
            "max_tool_rounds": 2,
            "skills": ["python-checks"],
        },
        {"role": "critic", "max_tool_rounds": 2},
        {"role": "coder", "prompt": "tone"},
        {"role": "coder", "prompt": "tone@3", "first_token_timeout": "119s", "stall_timeout": "10s"},
        {"model": {"among": ["acme/a", "openai/gpt-4"]}, "fallback": ["openai/gpt-4"]},
        {"role": "coder", "stream": False},
    ],
)
def test_what_the_tenants_catalogue_has_may_be_named(agent: dict[str, Any]) -> None:
    assert places(definition({"budget": {"tokens": 1_000}, "role": "critic"}, **agent)) == []


@pytest.mark.parametrize(
    ("agent", "code", "place"),
    [
        ({"role": "critc"}, "role_unknown", "role"),
        ({"role": "coder", "skills": ["house-stile"]}, "skill_unknown", "skills/0"),
        ({"role": "coder", "skills": ["debugging", "debugging"]}, "value_wrong", "skills/1"),
        ({"role": "coder", "tools": ["htpp"]}, "tool_unknown", "tools/0"),
        ({"role": "coder", "tools": ["http", "http"]}, "value_wrong", "tools/1"),
        ({"role": "coder", "prompt": "tune"}, "prompt_unknown", "prompt"),
        ({"role": "coder", "prompt": "tone@4"}, "prompt_unknown", "prompt"),
        ({"role": "coder", "prompt": "tone", "system": "s"}, "fields_conflict", "prompt"),
        ({"model": "acmee/x"}, "model_unknown", "model"),
        ({"model": "openai/x", "fallback": ["llama"]}, "model_unknown", "fallback/0"),
        ({"model": "openai/x", "fallback": ["openai/x"]}, "value_wrong", "fallback/0"),
        ({"model": "openai/x", "fallback": ["acme/y", "acme/y"]}, "value_wrong", "fallback/1"),
        # The role's model is the first that is asked.
        ({"role": "critic", "fallback": ["acme/llama-70b"]}, "value_wrong", "fallback/0"),
        ({"role": "coder", "max_tool_rounds": 2}, "field_useless", "max_tool_rounds"),
        ({"role": "coder", "first_token_timeout": "2m"}, "field_useless", "first_token_timeout"),
        ({"role": "coder", "stall_timeout": "3m"}, "field_useless", "stall_timeout"),
        ({"role": "coder", "stream": False, "stall_timeout": "3s"}, "field_useless", "stall_timeout"),
        ({"model": {"among": ["nobody/x"]}}, "model_unknown", "model/among/0"),
    ],
)
def test_what_an_agent_must_not_say(agent: dict[str, Any], code: str, place: str) -> None:
    assert places(definition(**agent)) == [(code, f"/agents/a/{place}")]


def test_the_longest_step_of_an_agent_decides_how_patient_it_may_be() -> None:
    document = definition(role="coder", stall_timeout="3m")
    document["steps"]["long"] = document["steps"]["ask"] | {"timeout": "4m"}
    assert places(document) == []
    document = definition(role="coder", stall_timeout="3m") | {"defaults": {"timeout": "10m"}}
    assert places(document) == []


def test_a_step_names_roles_too_and_bounds_something() -> None:
    assert places(definition({"role": "poet"}, role="coder")) == [("role_unknown", "/steps/ask/role")]
    empty: dict[str, Any] = {"budget": {}}
    assert places(definition(empty, role="coder")) == [("fields_conflict", "/steps/ask/budget")]


def test_who_answers_at_once_cannot_be_read_live() -> None:
    document = definition(role="coder", stream=False)
    document["steps"]["read"] = {"kind": "agent", "agent": "b", "prompt": "${steps.ask.output}"}
    document["agents"]["b"] = {"role": "reviewer"}
    document["stream"] = [{"from": "ask", "to": "read", "start": "sentence"}]
    assert places(document) == [("stream_impossible", "/stream/0/from")]


def test_without_a_tenant_only_what_is_built_in_is_known() -> None:
    assert places(definition(role="critic"), BUILT_IN) == [("role_unknown", "/agents/a/role")]
    with pytest.raises(InvalidDefinition) as caught:
        validate(definition(role="revewer"))
    assert caught.value.problems[0].fix == "Did you mean 'reviewer'?"


def test_the_short_form_knows_the_tenants_roles() -> None:
    document = [{"agent": "critic", "stream_to": ["coder"]}, {"agent": "coder"}]
    assert validate(document, name="x", catalogue=MINE).definition.agents["critic"].role == "critic"
    with pytest.raises(InvalidDefinition) as caught:
        validate(document, name="x")
    assert [(one.code, one.pointer) for one in caught.value.problems] == [("agent_without_model", "/0/agent")]


def test_a_planner_may_name_what_the_tenant_has() -> None:
    step = AgentStep(kind="agent", agent="a", prompt="p", emits="definition")
    plan = definition(role="critic")
    assert faults(step, plan, {}, MINE) == []
    assert "role_unknown" not in str(found := faults(step, plan, {})) and "'critic'" in found[0]
    assert "critic" in planning.guide(MINE)


def test_a_hand_on_a_run_may_name_the_tenants_models() -> None:
    change = Steer(changes={"model": "acme/llama-70b"})
    assert isinstance(fault_of("adjust", change), Refused)
    assert fault_of("adjust", change, MINE.provider_names()) is None
    assert fault_of("adjust", change, providers=None) is None
    assert isinstance(fault_of("adjust", Steer(changes={"model": "acme"}), providers=None), Refused)


# -- what an agent comes to -------------------------------------------------------------------------


def test_an_agent_is_its_role_and_what_it_says_itself() -> None:
    agent = Agent(role="critic", skills=["python-checks"], tools=["http"])
    assert MINE.model_of(agent) == "acme/llama-70b"
    assert MINE.system_of(agent) == "You are a critic."
    assert list(MINE.skills_of(agent)) == ["house-style", "python-checks"]
    assert MINE.tools_of(agent) == ("http", "text.diff", "python.check")
    assert MINE.instructions_of(agent).startswith(
        "## Skill: house-style\nWrite as we do.\n\n## Skill: python"
    )
    assert (MINE.relationship("critic"), MINE.relationship("poet"), MINE.relationship(None)) == (
        "REVIEWED",
        "CONTRIBUTED",
        "CONTRIBUTED",
    )
    assert BUILT_IN.model_of(Agent(model="openai/x", role="coder")) == "openai/x"


@pytest.mark.parametrize(
    ("agent", "code"),
    [(Agent(role="gone"), "role_unknown"), (Agent(role="coder", skills=["gone"]), "skill_unknown")],
)
def test_what_was_removed_after_the_upload_fails_the_step(agent: Agent, code: str) -> None:
    with pytest.raises(StepError, match=f"facilitair {code[:-8]}s set gone") as caught:
        MINE.skills_of(agent)
    assert (caught.value.code, caught.value.retryable) == (code, False)


def test_a_catalogue_goes_to_another_process() -> None:
    assert from_json(json.loads(json.dumps(MINE.as_json()))) == MINE
    assert from_json(BUILT_IN.as_json()) == BUILT_IN
    assert set(MINE.as_json()["roles"]) == {"critic", "coder"}


def test_an_estimate_counts_tools_the_dearest_model_and_the_bound() -> None:
    cost = {"acme/llama-70b": Decimal(1), "openai/gpt-4": Decimal(30)}

    def most(step: dict[str, Any] | None = None, **agent: Any) -> tuple[int, Decimal | None]:
        checked = validate(definition(step, max_output_tokens=1, **agent), catalogue=MINE).definition
        found = estimate(checked, lambda model: (Decimal(0), cost[model]), MINE)
        return found.model_calls, found.usd

    assert most(model="acme/llama-70b") == (1, Decimal(1))
    assert most(role="critic") == (6, Decimal(6)), "its skill brings a tool: five rounds and the answer"
    assert most(model="acme/llama-70b", fallback=["openai/gpt-4"]) == (1, Decimal(30))
    assert most({"budget": {"usd": 4}}, role="critic", max_tool_rounds=9) == (10, Decimal(4))


# -- what is built in -------------------------------------------------------------------------------


def test_five_masters_lead_every_role() -> None:
    assert len(MASTERS) == 5
    assert MASTERS[0].name == "coordinator" and set(MASTERS[0].leads) == set(ROLE_DEFAULTS)
    assert sorted(role for master in MASTERS[1:] for role in master.leads) == sorted(ROLE_DEFAULTS)


def test_skills_say_something_and_bring_tools_that_exist() -> None:
    assert len(SKILLS) == 17
    for name, skill in SKILLS.items():
        assert re.fullmatch(NAME, name)
        assert skill_problems(skill) == []
        assert 150 <= len(skill.instructions) <= 700 and set(skill.tools) <= set(TOOLS)


def test_the_page_tells_of_everything_that_is_built_in() -> None:
    page = (ROOT / "docs" / "catalogue.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    for name, role in ROLE_DEFAULTS.items():
        assert rows[name] == f"{role.model} | {role.relationship}"
    for name, skill in SKILLS.items():
        assert rows[name].startswith(skill.description)
        assert all(f"`{tool}`" in rows[name] for tool in skill.tools)
    assert all(f"`{master.name}`" in page for master in MASTERS)
    for snippet in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        assert [code for code, _ in places(json.loads(snippet), BUILT_IN)] == ["role_unknown"]


def test_kinds_of_providers_are_those_of_the_table() -> None:
    (check,) = (one for one in providers.constraints if "kind" in str(one.name))
    assert set(re.findall(r"'(\w+)'", str(check.sqltext))) == set(get_args(ProviderKind))  # type: ignore[attr-defined]


# -- what a tenant may add --------------------------------------------------------------------------


def pointers(found: Any) -> list[tuple[str, str]]:
    return [(one.code, one.pointer) for one in found]


def test_a_role_names_what_there_is() -> None:
    assert role_problems(CRITIC, MINE) == []
    wrong = RoleDefault("nobody/x", "", "DESTROYED", "", ("house-stile", "debugging", "debugging"))
    assert pointers(role_problems(wrong, MINE)) == [
        ("model_unknown", "/model"),
        ("value_wrong", "/relationship"),
        ("skill_unknown", "/skills/0"),
        ("value_wrong", "/skills/2"),
    ]
    assert all(role.relationship in RELATIONSHIPS for role in ROLE_DEFAULTS.values())


def test_a_skill_says_something() -> None:
    assert pointers(skill_problems(Skill(" ", "", ("htpp",)))) == [
        ("value_wrong", "/description"),
        ("value_wrong", "/instructions"),
        ("tool_unknown", "/tools/0"),
    ]


_HOSTS = "models.acme.example, 127.0.0.1:8000"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "openai_compatible", "base_url": "https://models.acme.example/v1"}, []),
        ({"kind": "openai_compatible", "base_url": "http://127.0.0.1:8000"}, []),
        ({"kind": "ollama"}, []),
        ({"name": "openai", "kind": "openai", "key_ref": "team-a"}, []),
        ({"name": "qwen", "kind": "openrouter", "requests_per_minute": 5}, []),
        ({"kind": "openai_compatible"}, [("field_missing", "/base_url")]),
        ({"name": "simulator", "kind": "ollama"}, [("value_wrong", "/name")]),
        ({"name": "openai", "kind": "anthropic"}, [("value_wrong", "/kind")]),
        ({"kind": "openai", "base_url": "https://models.acme.example"}, [("field_missing", "/key_ref")]),
        ({"kind": "ollama", "base_url": "http://127.0.0.1:8001"}, [("provider_host_refused", "/base_url")]),
        ({"kind": "openai", "key_ref": "sk-proj-abc"}, [("key_not_reference", "/key_ref")]),
        ({"kind": "openai", "key_ref": "Team A"}, [("value_wrong", "/key_ref")]),
        ({"kind": "openai", "key_ref": "../other/key"}, [("value_wrong", "/key_ref")]),
    ],
)
def test_what_a_provider_may_be(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = provider_problems(TenantProvider(**{"name": "acme"} | fields), _HOSTS)
    assert pointers(found) == expected
    assert not any("sk-proj" in one.message for one in found), "what may be a key is never repeated"


@pytest.mark.parametrize(
    ("text", "is_key"),
    [
        ("sk-ant-api03-xyz", True),
        ("gsk_abc", True),
        ("AIzaSyD", True),
        ("ghp_x", True),
        ("Bearer abc", True),
        ("eyjafjord", False),
        ("eyJhbGciOi", True),
        ("4f9c2ab07d1e4c5f9a8b7c6d", True),
        ("AbCdEfGhIjKlMnOpQrS7", True),
        ("openai-team-a", False),
        ("production", False),
        ("key-of-2026", False),
        ("team-research-openai-production-2026", False),
        ("skills-team", False),
    ],
)
def test_a_key_is_told_from_a_name(text: str, is_key: bool) -> None:
    assert looks_like_key(text) is is_key


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://models.acme.example/v1", True),
        ("https://MODELS.acme.example", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.0.0.1/v1", False),
        ("https://models.acme.example.evil.com", False),
        ("https://evil.com/models.acme.example", False),
        ("https://user:secret@models.acme.example/", False),
        ("https://models.acme.example/v1?x=1", False),
        ("https://models.acme.example/v1#x", False),
        ("ftp://models.acme.example", False),
        ("models.acme.example", False),
        ("https://", False),
        ("http://[::1", False),
        ("", False),
        ("https://models.acme.example/v1 ", False),
        ("https://models.acme.example:bad/", False),
    ],
)
def test_only_hosts_that_the_operator_named_may_be_called(url: str, fine: bool) -> None:
    wrong = hosts.fault_of(url, _HOSTS)
    assert (wrong is None) is fine
    assert "secret" not in str(wrong)
    assert hosts.fault_of(url, "") is not None
