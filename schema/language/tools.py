"""The built-in tools as data: what each takes. Their code stands in activities/tools."""

from dataclasses import dataclass
from typing import Final

from schema.language.steps import JsonSchema


@dataclass(frozen=True, slots=True)
class BuiltInTool:
    description: str
    args: JsonSchema
    quick: bool = False
    """Takes milliseconds and calls nobody: may share an activity with its neighbours."""
    reaches_out: bool = False
    """Calls what is not the platform's own; a plan written by a model may not use it."""


def _args(required: list[str], **properties: JsonSchema) -> JsonSchema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXT: Final[JsonSchema] = {"type": "string"}

TOOLS: Final[dict[str, BuiltInTool]] = {
    "http": BuiltInTool(
        "Call a web address whose host the operator allowed (FACILITAIR_HTTP_TOOL_ALLOW). "
        "Returns {status, headers, body}; body is JSON where the answer says so.",
        _args(
            ["url"],
            url=_TEXT,
            method={"enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]},
            headers={"type": "object", "additionalProperties": _TEXT},
            body={},
        ),
        reaches_out=True,
    ),
    "python.check": BuiltInTool(
        "Static analysis of Python source by ruff, without running it. "
        "Returns {findings: [{code, message, line, column}], found_issues, lines, truncated}.",
        _args(["source"], source=_TEXT, filename=_TEXT, select={"type": "array", "items": _TEXT}),
    ),
    "text.diff": BuiltInTool(
        "The unified difference of two texts. Returns {diff, added, removed}.",
        _args(["before", "after"], before=_TEXT, after=_TEXT),
        quick=True,
    ),
    "text.code_blocks": BuiltInTool(
        "The fenced code blocks of a Markdown text. Returns {blocks: [{language, code}], code}.",
        _args(["text"], text=_TEXT),
        quick=True,
    ),
    "json.parse": BuiltInTool(
        "The JSON value inside a text, fenced or bare. Returns {value}.",
        _args(["text"], text=_TEXT),
        quick=True,
    ),
    "pause": BuiltInTool(
        "Let some time pass, at most a second; longer waits are steps of kind wait. Returns {seconds}.",
        _args(["seconds"], seconds={"type": "number", "minimum": 0, "maximum": 1}),
        quick=True,
    ),
}
