"""How much one document may hold, counted before anything of it is parsed or compiled."""

from typing import Final

from schema.expressions import Json
from schema.problems import Problems
from schema.steps import FUTURE_FIELDS, FUTURE_STEP_FIELDS
from schema.templates import count, escape

MAX_STEPS: Final = 1_000
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
        "input",
        "output",
        "steps",
        "agents",
        *FUTURE_FIELDS,
        *FUTURE_STEP_FIELDS,
    }
)


def check(document: dict[str, Json], problems: Problems) -> None:
    """Bound the work of everything that follows; cheap counts come first."""
    _check_sizes(document, problems)
    if not problems.all:
        _check_widths(document, problems)
    if not problems.all:
        _check_totals(document, problems)


def _check_sizes(document: dict[str, Json], problems: Problems) -> None:
    sizes = (
        ("steps", MAX_STEPS, "Split the work into several definitions."),
        ("agents", MAX_AGENTS, "Let steps share agents."),
        ("stream", MAX_EDGES, "Stream to fewer steps."),
    )
    for key, limit, fix in sizes:
        items = document.get(key)
        if isinstance(items, (dict, list)) and len(items) > limit:
            problems.add("too_many", f"/{key}", f"{len(items):,} {key}", f"at most {limit:,}", fix)


def _check_widths(document: dict[str, Json], problems: Problems) -> None:
    """An object of the language's own with far too many fields: each would become a problem."""
    stack: list[tuple[str, Json]] = [("", document)]
    for section in ("agents", "steps"):
        items = document.get(section)
        if isinstance(items, dict):
            stack.extend((f"/{section}/{escape(name)}", item) for name, item in items.items())
    while stack:
        pointer, item = stack.pop()
        if isinstance(item, list):
            stack.extend(
                (f"{pointer}/{at}", part) for at, part in enumerate(item) if isinstance(part, (dict, list))
            )
        elif isinstance(item, dict):
            if len(item) > MAX_FIELDS:
                problems.add(
                    "too_many", pointer, f"an object with {len(item):,} fields", f"at most {MAX_FIELDS}",
                    "Remove the fields that the language does not have.",
                )  # fmt: skip
                return
            stack.extend(
                (f"{pointer}/{escape(key)}", part)
                for key, part in item.items()
                if isinstance(part, (dict, list)) and key not in _FREE_FORM
            )


def _check_totals(document: dict[str, Json], problems: Problems) -> None:
    """Needs and expressions of all steps together."""
    items = document.get("steps")
    steps = [step for step in items.values() if isinstance(step, dict)] if isinstance(items, dict) else []
    needs = sum(len(step["needs"]) for step in steps if isinstance(step.get("needs"), list))
    if needs > MAX_NEEDS:
        problems.add(
            "too_many", "/steps", f"{needs:,} needs", f"at most {MAX_NEEDS:,}",
            "Gather them in a transform step that the others need.",
        )  # fmt: skip
    number, chars = count(document, MAX_EXPRESSIONS)
    whens = [step["when"] for step in steps if "when" in step]
    number += len(whens)
    chars += sum(len(when) for when in whens if isinstance(when, str))
    if number > MAX_EXPRESSIONS or chars > MAX_EXPRESSION_CHARS:
        problems.add(
            "too_many", "", f"{number:,} expressions with {chars:,} characters",
            f"at most {MAX_EXPRESSIONS:,} with {MAX_EXPRESSION_CHARS:,} together",
            "Compute shared values once in a transform step.",
        )  # fmt: skip
