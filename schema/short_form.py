"""The seed's short form (S3-07), a list of {"agent", "stream_to"}, as a full definition."""

from typing import Final

from schema.catalogue import ROLES
from schema.expressions import Json
from schema.templates import escape

MAX_ITEMS: Final = 1_000
MAX_EDGES: Final = 5_000


def is_short_form(document: Json) -> bool:
    """A bare list, or an object whose `steps` is a list."""
    return isinstance(document, list) or (
        isinstance(document, dict) and isinstance(document.get("steps"), list)
    )


def expand(document: Json, default_name: str | None = None) -> Json:
    """The full form: one agent step per agent, an edge and a dependency per `stream_to`.

    Items of a wrong shape are passed on as they are, so that the validator reports them where they stand.
    """
    items = document if isinstance(document, list) else document["steps"]
    rest = {} if isinstance(document, list) else {k: v for k, v in document.items() if k != "steps"}
    if default_name and "name" not in rest:
        rest = {"name": default_name} | rest
    if len(items) > MAX_ITEMS or not all(_is_item(item) for item in items):
        return {**rest, "steps": items}
    if sum(len(item.get("stream_to", [])) for item in items) > MAX_EDGES:
        return {**rest, "steps": items}
    upstream: dict[str, list[str]] = {}
    for item in items:
        upstream.setdefault(item["agent"], [])
    for item in items:
        for target in item.get("stream_to", []):
            upstream.setdefault(target, []).append(item["agent"])
    agents = {name: {"role": name} if name in ROLES else {} for name in upstream}
    steps = {
        name: {
            "kind": "agent", "agent": name, "needs": list(dict.fromkeys(sources)),
            "prompt": _prompt(sources),
        }
        for name, sources in upstream.items()
    }  # fmt: skip
    stream = [{"from": item["agent"], "to": target} for item in items for target in item.get("stream_to", [])]
    task = {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}}
    return {
        "input": task,
        **rest,
        "agents": _merged(agents, rest.get("agents", {})),
        "steps": steps,
        "stream": stream,
    }


def _merged(agents: dict[str, Json], written: Json) -> Json:
    return agents | written if isinstance(written, dict) else written


def as_uploaded(pointer: str, document: Json) -> str:
    """A pointer into the full form as one into the short form that was uploaded."""
    items, base = (document, "") if isinstance(document, list) else (document["steps"], "/steps")
    section, _, rest = pointer.removeprefix("/").partition("/")
    if not all(_is_item(item) for item in items) or section not in ("steps", "agents", "stream"):
        return pointer if isinstance(document, dict) else pointer.removeprefix("/steps")
    edges = [
        (f"{base}/{index}/stream_to/{at}", target)
        for index, item in enumerate(items)
        for at, target in enumerate(item.get("stream_to", []))
    ]
    key = rest.partition("/")[0]
    if section == "stream":
        return edges[int(key)][0] if key.isdecimal() and int(key) < len(edges) else base
    if section == "agents" and isinstance(document, dict) and "agents" in document:
        written = document["agents"]
        if not isinstance(written, dict) or key in map(escape, written):
            return pointer
    named = [f"{base}/{index}/agent" for index, item in enumerate(items) if escape(item["agent"]) == key]
    return next(iter([*named, *(at for at, target in edges if escape(target) == key)]), base)


def _is_item(item: Json) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("agent"), str)
        and set(item) <= {"agent", "stream_to"}
        and isinstance(item.get("stream_to", []), list)
        and all(isinstance(target, str) for target in item.get("stream_to", []))
    )


def _prompt(sources: list[str]) -> str:
    work = "".join(f"\n\n## {name}\n${{steps.{name}.output}}" for name in dict.fromkeys(sources))
    return "${input.task}" + work
