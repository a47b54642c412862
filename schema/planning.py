"""What an agent that writes definitions is told of the language, and the form in which it answers."""

import json
from typing import Final

from schema.catalogue import BUILT_IN, Catalogue
from schema.steps import JsonSchema
from schema.tools import TOOLS

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
    )
    return _TEXT.format(roles=", ".join(catalogue.roles), tools=tools, example=json.dumps(EXAMPLE))
