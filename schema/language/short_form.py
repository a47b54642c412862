"""The seed's short form (S3-07), a list of {"agent", "stream_to"}, as a full definition."""

import re
from collections.abc import Collection
from typing import Final

from schema.cel.expressions import Json
from schema.language.catalogue import ROLES
from schema.language.steps import STEP_ID
from schema.language.streams import rings
from schema.language.templates import escape
from schema.names import RESERVED_IDS

MAX_ITEMS: Final = 1_000
MAX_EDGES: Final = 5_000
MAX_ROUNDS: Final = 3
"""Most rounds of two agents that stream to each other."""

_REVIEW: Final[dict[str, Json]] = {
    "type": "object",
    "required": ["found_issues", "issues"],
    "properties": {
        "found_issues": {"type": "boolean"},
        "issues": {"type": "array", "items": {"type": "string"}},
    },
}


def is_short_form(document: Json) -> bool:
    """A bare list, or an object whose `steps` is a list."""
    return isinstance(document, list) or (
        isinstance(document, dict) and isinstance(document.get("steps"), list)
    )


def expand(document: Json, default_name: str | None = None, roles: Collection[str] = ROLES) -> Json:
    """The full form: one agent step per agent, a live edge per `stream_to`.

    Two agents that stream to each other become a bounded loop; any longer circle stays one, and is refused.
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
    edges = [(item["agent"], target) for item in items for target in item.get("stream_to", [])]
    upstream: dict[str, list[str]] = {item["agent"]: [] for item in items}
    for source, target in edges:
        upstream.setdefault(target, []).append(source)
    agents = {name: {"role": name} if name in roles else {} for name in upstream}
    loops = _loops(upstream)
    inside = {name: loop for loop, pair in loops.items() for name in pair}
    steps: dict[str, Json] = {}
    for name, sources in upstream.items():
        loop = inside.get(name)
        if loop is None:
            steps[name] = _agent_step(name, sources, inside)
        elif loop not in steps:
            steps[loop] = _loop_step(loops[loop], upstream, inside)
    ring = rings(edges)
    stream: list[dict[str, Json]] = []
    for source, target in edges:
        together = source in inside and inside[source] == inside.get(target)
        ends = (source, target) if together else (inside.get(source, source), inside.get(target, target))
        edge: dict[str, Json] = {"from": ends[0], "to": ends[1]}
        live = {**edge, "start": "sentence"}
        # Two agents in a loop take turns already, a circle is refused, and who is named twice reads once.
        waits = source in inside or target in inside or ring[source] == ring[target] or live in stream
        stream.append(edge if waits else live)
    task = {"type": "object", "required": ["task"], "properties": {"task": {"type": "string"}}}
    return {
        "input": task,
        **rest,
        "agents": _merged(agents, rest.get("agents", {})),
        "steps": steps,
        "stream": stream,
    }


def _loops(upstream: dict[str, list[str]]) -> dict[str, tuple[str, str]]:
    """Loop step → the two agents that stream to each other, who is listed first before the other.

    Only pairs apart from each other, whose names can be those of steps: there the meaning is plain.
    """
    partners = {name: {one for one in sources if one != name} for name, sources in upstream.items()}
    for name, sources in list(partners.items()):
        partners[name] = {one for one in sources if name in upstream[one]}
    found: dict[str, tuple[str, str]] = {}
    for first, others in partners.items():
        second = next(iter(others), first)
        loop = f"{first}_and_{second}"
        alone = len(others) == 1 and len(partners[second]) == 1
        fits = all(re.fullmatch(STEP_ID, name) and name not in RESERVED_IDS for name in (first, second, loop))
        if alone and fits and loop not in upstream and f"{second}_and_{first}" not in found:
            found[loop] = (first, second)
    return found


def _agent_step(name: str, sources: list[str], inside: dict[str, str]) -> Json:
    return {
        "kind": "agent",
        "agent": name,
        "needs": list(dict.fromkeys(inside.get(source, source) for source in sources)),
        "prompt": _prompt(sources, inside),
    }


def _loop_step(pair: tuple[str, str], upstream: dict[str, list[str]], inside: dict[str, str]) -> Json:
    """The first works, the second says what is wrong with it, until nothing is or after so many rounds."""
    first, second = pair
    outside = [source for name in pair for source in upstream[name] if source not in pair]
    return {
        "kind": "loop",
        "needs": list(dict.fromkeys(inside.get(source, source) for source in outside)),
        "max_iterations": MAX_ROUNDS,
        "until": f"!iter.output.{second}.found_issues",
        "body": {
            "steps": {
                first: {
                    "kind": "agent",
                    "agent": first,
                    "prompt": _prompt([one for one in upstream[first] if one != second], inside)
                    + "\n\n## The round before\n${iter.previous == null ? 'none' : iter.previous}",
                },
                second: {
                    "kind": "agent",
                    "agent": second,
                    "prompt": _prompt([one for one in upstream[second] if one != first], inside)
                    + f"\n\n## {first}\n${{steps.{first}.output}}",
                    "output_schema": _REVIEW,
                },
            },
            "output": {name: f"${{steps.{name}.output}}" for name in pair},
        },
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
    if section == "steps" and key not in (escape(item["agent"]) for item in items):
        # A loop of two agents: the one inside, or the first of them.
        inner = rest.partition("/body/steps/")[2].partition("/")[0]
        key = inner or key.partition("_and_")[0]
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


def _prompt(sources: list[str], inside: dict[str, str]) -> str:
    """The task and what others made of it; of two in a loop their last outputs."""
    work = "${input.task}"
    for name in dict.fromkeys(sources):
        path = f"steps.{inside[name]}.output.{name}" if name in inside else f"steps.{name}.output"
        work += f"\n\n## {name}\n${{{path}}}"
    return work
