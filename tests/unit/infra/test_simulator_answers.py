"""What the simulator answers: deterministic, in role, and with faults that a review can find."""

import ast
import json
from collections.abc import Mapping

import pytest

from infra.simulator.answers import answer_text, count_input_tokens, split_tokens
from infra.simulator.flaws import FLAWS, cure, find_flaws
from infra.simulator.prompt import read_prompt
from infra.simulator.skills import SKILL_TABLE, domain_of, traits_of
from schema.language.catalogue import ROLE_DEFAULTS, ROLES, ROUTABLE_MODELS, Role

TASK = "Build a rate limiter for the REST API with quotas per tenant"
REVIEW_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "required": ["found_issues", "issues", "quality", "severity"],
    "properties": {
        "found_issues": {"type": "boolean"},
        "quality": {"type": "number", "minimum": 0, "maximum": 1},
        "severity": {"enum": ["none", "low", "medium", "high"]},
        "issues": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["severity", "message"],
                "properties": {
                    "severity": {"enum": ["low", "medium", "high"]},
                    "message": {"type": "string"},
                    "line": {"type": "integer"},
                    "file": {"type": "string"},
                    "quote": {"type": "string"},
                },
            },
        },
    },
}
REVIEW_FORMAT = {"type": "json_schema", "json_schema": {"name": "review", "schema": REVIEW_SCHEMA}}
FAULTY = '''```python
def lookup(connection, name, seen=None):
    """Find a customer."""
    try:
        return connection.execute(f"SELECT id FROM customers WHERE name = '{name}'")
    except Exception:
        return None
```'''


def _answer(role: Role, user: str, model: str = "openai/gpt-4", seed: int = 0, form: object = None) -> str:
    system = ROLE_DEFAULTS[role].system
    return answer_text(seed, model, [_said("system", system), _said("user", user)], form)


def _said(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content}


def _code(answer: str) -> str:
    return answer.split("```python\n")[1].split("\n```")[0]


@pytest.mark.parametrize("role", ROLES)
def test_the_role_is_read_from_the_platforms_own_prompts(role: Role) -> None:
    prompt = read_prompt(0, "m", [_said("system", ROLE_DEFAULTS[role].system), _said("user", TASK)])
    assert prompt.role == role


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("model", ROUTABLE_MODELS)
def test_an_answer_is_stable_speaks_of_the_task_and_has_a_usual_length(role: Role, model: str) -> None:
    answer = _answer(role, TASK, model)
    assert answer == _answer(role, TASK, model)
    assert "limiter" in answer.lower()
    assert 20 <= len(split_tokens(answer)) <= 260
    assert "".join(split_tokens(answer)) == answer


def test_seed_model_and_messages_each_change_the_draw() -> None:
    drawn = {
        read_prompt(*arguments).digest
        for arguments in (
            (0, "a", [_said("user", "x")]),
            (1, "a", [_said("user", "x")]),
            (0, "b", [_said("user", "x")]),
            (0, "a", [_said("user", "y")]),
        )
    }
    assert len(drawn) == 4


def test_written_code_is_python_with_every_fault_the_author_can_make() -> None:
    seen: set[str] = set()
    for seed in range(60):
        code = _code(_answer("coder", TASK, "openai/gpt-4o-mini", seed))
        ast.parse(code)
        seen |= {finding.code for finding in find_flaws(code)}
    assert seen == {flaw.code for flaw in FLAWS if flaw.sample}


def test_cured_samples_are_python_without_the_fault() -> None:
    for flaw in FLAWS:
        if flaw.sample:
            assert [finding.code for finding in find_flaws(flaw.sample)] == [flaw.code]
            cured = cure(flaw.sample, {flaw.code})
            assert find_flaws(cured) == []
            ast.parse(cured)


def test_a_better_model_leaves_fewer_faults() -> None:
    def faults(model: str) -> int:
        codes = [_code(_answer("coder", TASK, model, seed)) for seed in range(200)]
        return sum(len(find_flaws(code)) for code in codes)

    # Ordered by the table's skill in the backend domain.
    assert faults("anthropic/claude-3.5-sonnet") < faults("openai/gpt-4") < faults("openai/gpt-4o-mini")


def test_a_design_with_holes_makes_faults_likelier() -> None:
    def faults(design: str) -> int:
        answers = [_answer("coder", f"{TASK}\n\n{design}", seed=seed) for seed in range(200)]
        return sum(len(find_flaws(_code(answer))) for answer in answers)

    assert faults("limits: one hundred") < faults("limits: TBD")


def test_a_review_quotes_the_code_that_it_read() -> None:
    user = f"Review this customer lookup:\n{FAULTY}"
    review = json.loads(_answer("reviewer", user, "anthropic/claude-3.5-sonnet", form=REVIEW_FORMAT))
    assert review["found_issues"] is True
    assert review["severity"] == "high"
    worst = review["issues"][0]
    assert worst["quote"].startswith('return connection.execute(f"SELECT')
    assert worst["line"] == 4
    assert "lookup" in _answer("reviewer", user)


@pytest.mark.parametrize(
    "report",
    [
        "app/main.py:12:5: F841 local variable `total` is assigned to but never used",
        '[{"file": "app/main.py", "line": 12, "code": "F841", "message": "local variable `total`"}]',
    ],
)
def test_a_tools_findings_are_always_reported(report: str) -> None:
    user = f"Review the change. Static analysis says:\n{report}\n"
    review = json.loads(_answer("reviewer", user, "ollama/llama3.2", form=REVIEW_FORMAT))
    issue = review["issues"][0]
    assert review["found_issues"] is True
    assert (issue["file"], issue["line"]) == ("app/main.py", 12)
    assert issue["message"].startswith("F841 local variable `total`")


@pytest.mark.parametrize("seed", range(25))
def test_a_loop_of_review_and_repair_comes_to_an_end(seed: int) -> None:
    work = _answer("coder", TASK, "ollama/llama3.2", seed)
    first = len(find_flaws(_code(work)))
    for _ in range(first + 1):
        review = json.loads(_answer("reviewer", f"Review:\n{work}", seed=seed, form=REVIEW_FORMAT))
        if not review["found_issues"]:
            break
        work = _answer("refiner", f"Work:\n{work}\nFindings: {review}", "ollama/llama3.2", seed)
        ast.parse(_code(work))
    assert not review["found_issues"]


def test_quality_follows_the_work_and_not_the_eyes() -> None:
    clean = json.loads(_answer("reviewer", f"Review:\n{_cured()}", form=REVIEW_FORMAT))
    faulty = json.loads(_answer("reviewer", f"Review:\n{FAULTY}", form=REVIEW_FORMAT))
    assert clean["found_issues"] is False
    assert 0 <= faulty["quality"] < clean["quality"] <= 1


def _cured() -> str:
    return cure(FAULTY, {flaw.code for flaw in FLAWS})


def test_a_long_file_comes_back_as_the_changed_places() -> None:
    lines = [f"value_{number} = {number}" for number in range(400)]
    lines[200] = "ready = value_1 == None"
    answer = _answer("refiner", "Repair:\n```python\n" + "\n".join(lines) + "\n```")
    assert "ready = value_1 is None" in answer
    assert len(answer.splitlines()) < 30


def test_the_order_of_domains_and_unknown_models_are_settled() -> None:
    assert domain_of("a REST endpoint for an enterprise invoice") == "enterprise"
    assert domain_of("sort behind an API") == "algorithms"
    assert domain_of("an HTTP endpoint") == "backend"
    assert domain_of("a poem") == "general"
    assert traits_of("someone/else") == traits_of("someone/else")
    assert all(0.5 <= skill <= 0.8 for skill in traits_of("someone/else").skill.values())
    assert set(ROUTABLE_MODELS) <= set(SKILL_TABLE)


def test_content_in_parts_is_read_and_counted() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": TASK}]}]
    assert read_prompt(0, "m", messages).text == TASK
    assert count_input_tokens(messages) > count_input_tokens([_said("user", "hi")]) > 4
