"""A trace on the screen (S3-31, S3-32): every span with its time, model, tokens and dollars, and the sum.

The sum comes from the run's own books: a worker that is killed takes its last half second of spans along.
"""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from schema import telemetry

Span = dict[str, Any]
Run = dict[str, Any]


def total(run: Run) -> dict[str, Any]:
    return {
        "steps": len({one["step"] for one in run["steps"] if one["status"] == "completed"}),
        "seconds": run["seconds"],
        "tokens": run["tokens"],
        "cost_usd": run["cost_usd"],
    }


def lost(spans: list[Span], run: Run) -> list[dict[str, Any]]:
    """Attempts that left no span."""
    known = {
        (_of(span, telemetry.STEP), int(_of(span, telemetry.ATTEMPT) or 1))
        for span in spans
        if span["name"].startswith(telemetry.INVOKE_AGENT)
    }
    return [
        one
        for one in run["steps"]
        if one["kind"] == "agent"
        and one["status"] != "running"
        and (one["step"], one["attempt"]) not in known
    ]


def picture(spans: list[Span], run: Run) -> RenderableType:
    known = {span["span_id"] for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        parent = span["parent_id"] if span["parent_id"] in known else ""
        children.setdefault(parent or "", []).append(span)
    trees: list[RenderableType] = []
    for root in children.get("", []):
        tree = Tree(_line(root))
        waiting = [(tree, root)]
        while waiting:
            branch, span = waiting.pop()
            below = children.get(span["span_id"], [])
            waiting.extend((branch.add(_line(child)), child) for child in below)
        trees.append(tree)
    return Group(*trees, *(_lost_line(one) for one in lost(spans, run)), _total_line(total(run)))


def _of(span: Span, name: str) -> Any:
    return span["attributes"].get(name)


def _line(span: Span) -> Text:
    step = _of(span, telemetry.STEP)
    tokens = int(_of(span, telemetry.INPUT_TOKENS) or 0) + int(_of(span, telemetry.OUTPUT_TOKENS) or 0)
    text = Text.assemble((span["name"], "bold"), f" · {step}" if step and step not in span["name"] else "")
    text.append(
        _facts(
            span["seconds"],
            _of(span, telemetry.RESPONSE_MODEL) or _of(span, telemetry.REQUEST_MODEL),
            tokens,
            float(_of(span, telemetry.COST_USD) or 0),
            int(_of(span, telemetry.ATTEMPT) or 1),
        )
    )
    if _of(span, telemetry.SEED_FOUND_ISSUES):
        text.append("  issues found", "yellow")
    if _of(span, telemetry.SIMULATED):
        text.append("  simulated", "dim")
    if span["status"] == "error":
        text.append(f"  failed {_of(span, telemetry.ERROR_TYPE) or ''}".rstrip(), "red")
    return text


def _facts(seconds: float, model: str | None, tokens: int, cost_usd: float, attempt: int) -> str:
    parts = [
        f"{seconds:.2f} s",
        model or "",
        f"{tokens} tokens" if tokens else "",
        f"${cost_usd:.6f}" if cost_usd else "",
        f"attempt {attempt}" if attempt > 1 else "",
    ]
    return "  " + "  ".join(part for part in parts if part)


def _lost_line(one: dict[str, Any]) -> Text:
    facts = _facts(one["seconds"], one["model"], one["tokens"], one["cost_usd"], one["attempt"])
    return Text(
        f"{one['agent']} · {one['step']}{facts}  {one['status']}, span lost with its worker", style="dim"
    )


def _total_line(sum: dict[str, Any]) -> Text:
    cost = f"${sum['cost_usd']:.6f}"
    return Text(
        f"total: {sum['steps']} steps, {sum['seconds']:.1f} s, {sum['tokens']} tokens, {cost}", "bold"
    )
