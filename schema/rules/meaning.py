"""Check well-formed parts together: names, models and tools exist, and the graph is acyclic."""

from schema.language.catalogue import Catalogue
from schema.language.definition import Budget
from schema.language.dependencies import Dependencies, dependencies
from schema.language.problems import Problems
from schema.language.shape import Parts
from schema.language.steps import AgentStep, CollaborationStep, ToolStep
from schema.rules.agents import AgentRules, check_model
from schema.rules.graph import DependencyRules
from schema.rules.presence import Presence
from schema.rules.references import ExpressionPlace, References
from schema.rules.steps import Schemas, StepRules, check_people, conflict, useless
from schema.rules.streams import StreamRules


def check(parts: Parts, problems: Problems, catalogue: Catalogue) -> dict[str, Dependencies]:
    """Check the parts and return each step's dependencies."""
    references, schemas = References(parts, problems), Schemas(problems)
    AgentRules(parts, catalogue, problems).check()
    links, unclear = _check_steps(references, schemas)
    if parts.budget:
        _check_budget(parts.budget, problems, catalogue)
    schema = parts.document.get("input")
    if isinstance(schema, dict):
        schemas.check("/input", schema)
    if "output" in parts.document:
        references.check_template("/output", parts.document["output"], ExpressionPlace())
    streams = StreamRules(references).check()
    StreamRules(references).check_readers(streams, links)
    DependencyRules(references).check_cycles(links, streams)
    DependencyRules(references).check_presence(Presence(links, parts.frames, unclear, streams))
    return links


def _check_steps(references: References, schemas: Schemas) -> tuple[dict[str, Dependencies], set[str]]:
    """Return each step's dependencies, and the steps whose dependencies are not fully known."""
    parts = references.parts
    rules, graph = StepRules(references, schemas), DependencyRules(references)
    broken: set[str] = set()
    """Steps with an expression that does not compile, in their bodies too: it cannot say what they read."""
    for name, placed in parts.steps.items():
        graph.check(name, placed)
        if not rules.check(name, placed):
            broken.update((name, *placed.frame))
    links = {
        name: Dependencies(tuple(need for need in placed.step.needs if ":" not in need), (), ())
        if name in broken
        else dependencies(placed.step)
        for name, placed in parts.steps.items()
    }
    for name, placed in parts.steps.items():
        step = placed.step
        if isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and step.compensate:
            # Where some of its needs are enough, none of them is sure to have completed.
            surely = links[name].needs if step.join == "all" else ()
            rules.check_compensation(name, placed, step.compensate, surely)
    return links, broken


def _check_budget(budget: Budget, problems: Problems, catalogue: Catalogue) -> None:
    if budget.usd is None and budget.tokens is None and budget.time is None:
        conflict(
            "/budget",
            "none of usd, tokens and time",
            "at least one of them",
            'Add a bound such as "usd": 1.5, or leave the budget out.',
            problems,
        )
    if budget.degrade_to is not None:
        check_model("/budget/degrade_to", budget.degrade_to, catalogue, problems)
    elif budget.on_exceed == "degrade":
        problems.add(
            "field_missing", "/budget/degrade_to", "nothing", "a cheaper model", "Add it as provider/model."
        )
    check_people("/budget/assignees", budget.assignees, problems)
    for field, reason in (("degrade_to", "degrade"), ("assignees", "ask")):
        if getattr(budget, field) and budget.on_exceed != reason:
            useless(
                f"/budget/{field}",
                f"{field} without on_exceed: {reason}",
                f'Add "on_exceed": "{reason}", or remove it.',
                problems,
            )
