"""What well-formed parts mean together: names lead somewhere, models and tools exist, the DAG is one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from schema import json_schemas
from schema.catalogue import PROVIDERS, ROLE_DEFAULTS
from schema.compile import Dependencies, dependencies, topological
from schema.problems import EnoughProblems, Problems, show
from schema.references import References
from schema.shape import Parts
from schema.steps import Agent, AgentStep, JsonSchema, Route, Step, ToolStep, TransformStep
from schema.templates import escape
from schema.tools import TOOLS

MAX_CYCLES: Final = 10
MAX_SCHEMA_VALUES: Final = 6_000
"""Values in all JSON Schemas of a definition: each is checked against the schema of schemas."""


def check(parts: Parts, problems: Problems) -> dict[str, Dependencies]:
    """What each step depends on."""
    references, schemas = References(parts, problems), _Schemas(problems)
    for name, agent in parts.agents.items():
        _check_agent(name, agent, problems)
    links = {name: _check_step(name, step, references, schemas) for name, step in parts.steps.items()}
    _check_cycles({name: (*link.needs, *link.waits) for name, link in links.items()}, problems)
    schema = parts.definition.input if parts.definition else parts.document.get("input")
    if isinstance(schema, dict):
        schemas.check("/input", schema)
    if "output" in parts.document:
        references.check_template("/output", parts.document["output"])
    _check_stream(references)
    return links


@dataclass
class _Schemas:
    """Checks JSON Schemas, so many values of them in all."""

    problems: Problems
    _values: int = 0

    def check(self, pointer: str, schema: JsonSchema) -> None:
        self._values += json_schemas.size(schema)
        if self._values > MAX_SCHEMA_VALUES:
            self.problems.add(
                "too_many", pointer, f"JSON Schemas with {self._values:,} values together",
                f"at most {MAX_SCHEMA_VALUES:,}", "Describe less, or split the definition.",
            )  # fmt: skip
            raise EnoughProblems
        if fault := json_schemas.schema_fault(schema):
            self.problems.add(
                "schema_invalid", pointer, fault, "a JSON Schema (2020-12) without remote references",
                "Correct the schema.",
            )  # fmt: skip


def _check_agent(name: str, agent: Agent, problems: Problems) -> None:
    pointer = f"/agents/{escape(name)}"
    if agent.model is None and agent.role is None:
        problems.add(
            "agent_without_model", pointer, f"agent {name!r} with neither model nor role",
            "a model, a routing rule or a role", 'Add "model": "openai/gpt-4" or "role": "coder".',
        )  # fmt: skip
    if isinstance(agent.model, Route):
        for index, model in enumerate(agent.model.among):
            _check_model(f"{pointer}/model/among/{index}", model, problems)
    elif agent.model is not None:
        _check_model(f"{pointer}/model", agent.model, problems)


def _check_model(pointer: str, model: str, problems: Problems) -> None:
    provider, _, rest = model.partition("/")
    if provider not in PROVIDERS or not rest or len(model) > 200:
        known = dict.fromkeys(default.model for default in ROLE_DEFAULTS.values())
        problems.add(
            "model_unknown", pointer, show(model),
            f"provider/model with a provider of {', '.join(PROVIDERS)}", problems.hint(model, known),
        )  # fmt: skip


def _check_step(name: str, step: Step, references: References, schemas: _Schemas) -> Dependencies:
    pointer = f"/steps/{escape(name)}"
    parts, problems = references.parts, references.problems
    for index, need in enumerate(step.needs):
        if need not in parts.step_ids:
            references.step_unknown(f"{pointer}/needs/{index}", need, parts.step_ids)
    fine = step.when is None or references.check_expression(f"{pointer}/when", step.when, condition=True)
    match step:
        case AgentStep():
            if step.agent not in parts.agent_names:
                problems.add(
                    "agent_unknown", f"{pointer}/agent", show(step.agent), "an agent of this definition",
                    problems.hint(step.agent, parts.agents),
                )  # fmt: skip
            fine = references.check_template(f"{pointer}/prompt", step.prompt) and fine
        case ToolStep():
            _check_tool(pointer, step, problems)
            fine = references.check_template(f"{pointer}/args", step.args) and fine
        case TransformStep():
            fine = references.check_template(f"{pointer}/value", step.value) and fine
    if isinstance(step, (AgentStep, ToolStep)) and step.output_schema is not None:
        schemas.check(f"{pointer}/output_schema", step.output_schema)
    return dependencies(step) if fine else Dependencies(tuple(step.needs), (), ())


def _check_tool(pointer: str, step: ToolStep, problems: Problems) -> None:
    if (step.tool is None) == (step.activity is None):
        problems.add(
            "tool_unknown", pointer,
            "both tool and activity" if step.tool else "neither tool nor activity", "exactly one of them",
            "Name a built-in tool, or your own activity with its task_queue.",
        )  # fmt: skip
    if step.activity is not None and step.task_queue is None:
        problems.add(
            "field_missing", f"{pointer}/task_queue", "nothing", "the queue your worker serves",
            "Add task_queue.",
        )  # fmt: skip
    if step.tool is None:
        return
    if step.tool not in TOOLS:
        problems.add(
            "tool_unknown", f"{pointer}/tool", show(step.tool), "a built-in tool",
            problems.hint(step.tool, TOOLS),
        )  # fmt: skip
        return
    schema = TOOLS[step.tool].args
    for key in schema["required"]:
        if key not in step.args:
            problems.add(
                "tool_args_wrong", f"{pointer}/args/{key}", "nothing", f"the argument {key!r}", "Add it.",
            )  # fmt: skip
    for key, value in step.args.items():
        at = f"{pointer}/args/{escape(key)}"
        if key not in schema["properties"]:
            problems.add(
                "tool_args_wrong", at, f"the argument {show(key)}", f"an argument of {step.tool}",
                problems.hint(key, schema["properties"]),
            )  # fmt: skip
        elif "${" not in str(value) and (wrong := json_schemas.violations(schema["properties"][key], value)):
            problems.add("tool_args_wrong", at, wrong[0][1], "a fitting value", "Correct it.")


def _check_stream(references: References) -> None:
    parts = references.parts
    stream = parts.document.get("stream")
    for index, edge in enumerate(stream if isinstance(stream, list) else []):
        for end in ("from", "to"):
            name = edge.get(end) if isinstance(edge, dict) else None
            if isinstance(name, str) and name not in parts.step_ids:
                references.step_unknown(f"/stream/{index}/{end}", name, parts.steps)


def _check_cycles(edges: Mapping[str, Collection[str]], problems: Problems) -> None:
    cyclic = edges.keys() - set(topological(edges))
    left = {name: [need for need in edges[name] if need in cyclic] for name in edges if name in cyclic}
    for _ in range(MAX_CYCLES):
        cycle = _find_cycle(left)
        if not cycle:
            return
        shown = " → ".join(cycle[:12]) + (" → …" if len(cycle) > 12 else "")
        problems.add(
            "cycle", f"/steps/{escape(cycle[0])}", f"the cycle {shown}",
            "steps that depend on earlier ones only",
            "A DAG has no cycles, and bounded loops are not supported yet: drop one of these "
            "dependencies, or write the rounds out as separate steps.",
        )  # fmt: skip
        gone = set(cycle)
        left = {
            name: [need for need in needs if need not in gone]
            for name, needs in left.items()
            if name not in gone
        }


def _find_cycle(edges: Mapping[str, list[str]]) -> list[str]:
    """One cycle in the direction of the data (a step after those it needs), first id repeated at the end."""
    done: set[str] = set()
    for start in edges:
        path: dict[str, None] = {}
        node: str | None = start
        while node is not None and node not in done:
            if node in path:
                walked = list(path)
                return [node, *reversed(walked[walked.index(node) :])]
            path[node] = None
            node = next((dep for dep in edges[node] if dep not in done), None)
        done.update(path)
    return []
