"""Instructions about the language for agents that write definitions, and the form of their answer."""

import json
from contextlib import suppress
from typing import Final

from schema.errors import StepError
from schema.language.catalogue import BUILT_IN, Catalogue
from schema.language.problems import Problems, show
from schema.language.shape import Parts
from schema.language.steps import AgentStep, CollaborationStep, Compensate, JsonSchema, ToolStep
from schema.language.templates import escape
from schema.language.tools import TOOLS

PLANNED_TOOLS: Final = tuple(name for name, tool in TOOLS.items() if not tool.reaches_out)
"""The built-in tools that a definition written by a model may use: those that touch nothing outside."""

# Loose on purpose: providers take no recursive schema, and the answer is checked like an upload anyway.
ANSWER: Final[JsonSchema] = {
    "title": "Facilitair definition",
    "type": "object",
    "required": ["name", "steps"],
    "properties": {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "input": {"type": "object"},
        "agents": {"type": "object"},
        "steps": {"type": "object"},
        "output": {},
    },
}

EXAMPLE: Final = {
    "name": "haiku",
    "agents": {"poet": {"role": "coder"}, "critic": {"role": "reviewer"}},
    "steps": {
        "write": {"kind": "agent", "agent": "poet", "prompt": "A haiku about ${input.task}"},
        "check": {"kind": "agent", "agent": "critic", "prompt": "Is this one?\n${steps.write.output}"},
    },
    "output": {"haiku": "${steps.write.output}", "review": "${steps.check.output}"},
}

_TEXT: Final = """\
Your answer is a plan: one JSON object in the language facilitair/v1, which is then checked and run.
- name: lower case letters, digits, - and _. agents: name to {{"role"}} or {{"model", "system"}}.
  The roles are {roles}.
- steps: id (lower case letters, digits, _) to step. Steps run as soon as what they need has completed, so \
independent ones run at the same time. Every step may have "needs": [ids] and "when": a CEL condition.
- {{"kind": "agent", "agent": name, "prompt": text, "output_schema": JSON Schema}}; without output_schema \
the output is text.
- {{"kind": "tool", "tool": name, "args": {{}}}}. The tools are:
{tools}
- {{"kind": "transform", "value": any JSON}}.
- {{"kind": "map", "over": CEL list, "max_items": 20, "body": {{"steps": {{}}, "output": any}}}}; the body \
sees item and index, and its output is a list.
- Texts may hold ${{…}} with a CEL expression over input and steps.<id>.output; reading a step's output also \
makes it a need. Step ids are unique in the whole plan and must not form a circle.
- output: any JSON with ${{…}} in it; what the plan comes to.
Example: {example}"""


def guide(catalogue: Catalogue = BUILT_IN) -> str:
    """The language in a few lines, for a system prompt."""
    tools = "\n".join(
        f"  {name} {{{', '.join(tool.args['properties'])}}}: {tool.description}"
        for name, tool in TOOLS.items()
        if name in PLANNED_TOOLS
    )
    return _TEXT.format(roles=", ".join(catalogue.roles), tools=tools, example=json.dumps(EXAMPLE))


def check(parts: Parts, problems: Problems, catalogue: Catalogue) -> None:
    """Refuse what an author may use and a definition written by a model may not.

    A model's answer can be steered by whatever text it has read. So its plan may ask models, compute and use
    tools that touch nothing outside; people name workers of users, the network and stored definitions.
    """
    for name, agent in parts.agents.items():
        pointer = f"/agents/{escape(name)}"
        for index, tool in enumerate(agent.tools):
            _check_tool(f"{pointer}/tools/{index}", tool, problems)
        with suppress(StepError):  # of a role or skill that is not there, which is refused elsewhere
            brought = (tool for skill in catalogue.skills_of(agent).values() for tool in skill.tools)
            for tool in dict.fromkeys(brought):
                _check_tool(pointer, tool, problems)
    for placed in parts.steps.values():
        pointer, step = placed.pointer, placed.step
        if isinstance(step, CollaborationStep) and step.ref is not None:
            problems.add(
                "not_for_plans",
                f"{pointer}/ref",
                f"the stored definition {show(step.ref)}",
                "a plan that does its own work",
                "Write the steps into the plan instead.",
            )
        calls: list[tuple[str, ToolStep | Compensate]] = []
        if isinstance(step, ToolStep):
            calls.append((pointer, step))
        if isinstance(step, (AgentStep, ToolStep, CollaborationStep)) and step.compensate:
            calls.append((f"{pointer}/compensate", step.compensate))
        for where, call in calls:
            if call.activity is not None:
                problems.add(
                    "not_for_plans",
                    f"{where}/activity",
                    f"the activity {show(call.activity)}",
                    "one of the tools " + ", ".join(PLANNED_TOOLS),
                    "A plan cannot call workers of users: use a tool, or leave the step out.",
                )
            if call.tool is not None:
                _check_tool(f"{where}/tool", call.tool, problems)


def _check_tool(pointer: str, tool: str, problems: Problems) -> None:
    if tool in TOOLS and tool not in PLANNED_TOOLS:
        problems.add(
            "not_for_plans",
            pointer,
            f"the tool {show(tool)}",
            "one of " + ", ".join(PLANNED_TOOLS),
            "A plan cannot reach out of the platform: use another tool, or leave the step out.",
        )
