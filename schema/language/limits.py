"""Bounds on one document, counted before anything of it is parsed or compiled."""

from collections.abc import Iterator
from typing import Final

from schema.cel.expressions import Json
from schema.language.problems import Problems
from schema.language.templates import count, escape

MAX_STEPS: Final = 1_000
MAX_BODIES: Final = 4
"""Bodies inside each other."""
MAX_AGENTS: Final = 200
MAX_EDGES: Final = 5_000
MAX_NEEDS: Final = 20_000
MAX_EXPRESSIONS: Final = 2_000
MAX_EXPRESSION_CHARS: Final = 64_000
MAX_FIELDS: Final = 64
"""Far more fields than any object of the language has."""

_FREE_FORM: Final = frozenset(
    {
        "args",
        "value",
        "output_schema",
        "form",
        "input",
        "output",
        "steps",
        "agents",
        "show",
        "definition",
        "init",
        "carry",
    }
)


RawStep = tuple[str, Json, int]
"""(JSON pointer, step, how many bodies it stands in)"""


def check(document: dict[str, Json], problems: Problems) -> None:
    """Bound the work of everything that follows; cheap counts come first."""
    steps = list(_raw_steps(document))
    _check_sizes(document, steps, problems)
    if not problems.all:
        _check_widths(document, steps, problems)
    if not problems.all:
        _check_totals(document, steps, problems)


def _raw_steps(document: dict[str, Json]) -> Iterator[RawStep]:
    """Yield everything in the position of a step, bodies included."""
    stack: list[tuple[str, Json, int]] = [("/steps", document.get("steps"), 0)]
    while stack:
        base, items, depth = stack.pop()
        for name, step in items.items() if isinstance(items, dict) else ():
            pointer = f"{base}/{escape(name)}"
            yield pointer, step, depth
            body = step.get("body") if isinstance(step, dict) else None
            if isinstance(body, dict) and isinstance(body.get("steps"), dict):
                stack.append((f"{pointer}/body/steps", body["steps"], depth + 1))


def _check_sizes(document: dict[str, Json], steps: list[RawStep], problems: Problems) -> None:
    sizes = (
        ("agents", MAX_AGENTS, "Let steps share agents."),
        ("stream", MAX_EDGES, "Stream to fewer steps."),
    )
    for key, limit, fix in sizes:
        items = document.get(key)
        if isinstance(items, (dict, list)) and len(items) > limit:
            problems.add("too_many", f"/{key}", f"{len(items):,} {key}", f"at most {limit:,}", fix)
    top = document.get("steps")
    number = len(steps) + (len(top) if isinstance(top, list) else 0)
    deepest, _, depth = max(steps, key=lambda step: step[2], default=("", None, 0))
    if number > MAX_STEPS:
        problems.add(
            "too_many",
            "/steps",
            f"{number:,} steps, those of bodies included",
            f"at most {MAX_STEPS:,}",
            "Split the work into several definitions.",
        )
    elif depth > MAX_BODIES:
        problems.add(
            "too_many",
            deepest,
            f"{depth} bodies inside each other",
            f"at most {MAX_BODIES}",
            "Make the inner ones a collaboration of their own.",
        )


def _check_widths(document: dict[str, Json], steps: list[RawStep], problems: Problems) -> None:
    """An object of the language's own with far too many fields: each would become a problem."""
    stack: list[tuple[str, Json]] = [("", document)]
    agents = document.get("agents")
    if isinstance(agents, dict):
        stack.extend((f"/agents/{escape(name)}", agent) for name, agent in agents.items())
    stack.extend((pointer, step) for pointer, step, _ in steps)
    while stack:
        pointer, item = stack.pop()
        if isinstance(item, list):
            stack.extend(
                (f"{pointer}/{at}", part) for at, part in enumerate(item) if isinstance(part, (dict, list))
            )
        elif isinstance(item, dict):
            if len(item) > MAX_FIELDS:
                problems.add(
                    "too_many",
                    pointer,
                    f"an object with {len(item):,} fields",
                    f"at most {MAX_FIELDS}",
                    "Remove the fields that the language does not have.",
                )
                return
            stack.extend(
                (f"{pointer}/{escape(key)}", part)
                for key, part in item.items()
                if isinstance(part, (dict, list)) and key not in _FREE_FORM
            )


def _check_totals(document: dict[str, Json], raw_steps: list[RawStep], problems: Problems) -> None:
    """Needs and expressions of all steps together."""
    steps = [step for _, step, _ in raw_steps if isinstance(step, dict)]
    needs = sum(len(step["needs"]) for step in steps if isinstance(step.get("needs"), list))
    if needs > MAX_NEEDS:
        problems.add(
            "too_many",
            "/steps",
            f"{needs:,} needs",
            f"at most {MAX_NEEDS:,}",
            "Gather them in a transform step that the others need.",
        )
    number, chars = count(document, MAX_EXPRESSIONS)
    bare = [source for step in steps for source in _bare_expressions(step)]
    number += len(bare)
    chars += sum(map(len, bare))
    if number > MAX_EXPRESSIONS or chars > MAX_EXPRESSION_CHARS:
        problems.add(
            "too_many",
            "",
            f"{number:,} expressions with {chars:,} characters",
            f"at most {MAX_EXPRESSIONS:,} with {MAX_EXPRESSION_CHARS:,} together",
            "Compute shared values once in a transform step.",
        )


def _bare_expressions(step: dict[str, Json]) -> Iterator[str]:
    """Expressions of a step that stand without ${}."""
    reflect = step.get("reflect")
    found = [step.get(field) for field in ("when", "over", "until")]
    found += _each(step.get("cases"), "when")
    found += _each(reflect.get("expect") if isinstance(reflect, dict) else None, "that")
    return (source for source in found if isinstance(source, str))


def _each(items: Json, field: str) -> list[Json]:
    return [item.get(field) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
