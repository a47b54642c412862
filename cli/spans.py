"""A trace on the screen (S3-31, S3-32): every span with its time, model, tokens and dollars, and the sum."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from schema import telemetry

Span = dict[str, Any]


def totals(spans: list[Span]) -> dict[str, Any]:
    """What the steps of a trace came to together; spans that only wrap them add nothing."""
    paid = [span for span in spans if telemetry.STEP in span["attributes"] and _is_step(span, spans)]
    return {
        "steps": len({span["attributes"][telemetry.STEP] for span in paid}),
        "seconds": _whole(spans),
        "input_tokens": sum(int(_of(span, telemetry.INPUT_TOKENS) or 0) for span in paid),
        "output_tokens": sum(int(_of(span, telemetry.OUTPUT_TOKENS) or 0) for span in paid),
        "cost_usd": round(sum(float(_of(span, telemetry.COST_USD) or 0) for span in paid), 6),
    }


def _is_step(span: Span, spans: list[Span]) -> bool:
    """The outermost span of a step: what a model call inside it cost is said there again."""
    parents = {one["span_id"]: one for one in spans}
    parent = parents.get(span["parent_id"] or "")
    return parent is None or telemetry.STEP not in parent["attributes"]


def _of(span: Span, name: str) -> Any:
    return span["attributes"].get(name)


def _whole(spans: list[Span]) -> float:
    from datetime import datetime

    began = min(datetime.fromisoformat(span["started_at"]) for span in spans) if spans else None
    ended = max(datetime.fromisoformat(span["ended_at"]) for span in spans) if spans else None
    return round((ended - began).total_seconds(), 3) if began and ended else 0.0


def picture(spans: list[Span]) -> RenderableType:
    known = {span["span_id"] for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        parent = span["parent_id"] if span["parent_id"] in known else ""
        children.setdefault(parent or "", []).append(span)
    trees = []
    for root in children.get("", []):
        tree = Tree(_line(root))
        waiting = [(tree, root)]
        while waiting:
            branch, span = waiting.pop()
            below = children.get(span["span_id"], [])
            waiting.extend((branch.add(_line(child)), child) for child in below)
        trees.append(tree)
    return Group(*trees, _total(totals(spans)))


def _line(span: Span) -> Text:
    tokens = int(_of(span, telemetry.INPUT_TOKENS) or 0) + int(_of(span, telemetry.OUTPUT_TOKENS) or 0)
    cost = _of(span, telemetry.COST_USD)
    parts = [
        f"{span['seconds']:.2f} s",
        str(_of(span, telemetry.RESPONSE_MODEL) or _of(span, telemetry.REQUEST_MODEL) or ""),
        f"{tokens} tokens" if tokens else "",
        f"${float(cost):.6f}" if cost is not None and float(cost) else "",
        "issues found" if _of(span, telemetry.SEED_FOUND_ISSUES) else "",
        f"attempt {_of(span, telemetry.ATTEMPT)}" if int(_of(span, telemetry.ATTEMPT) or 1) > 1 else "",
    ]
    text = Text.assemble((span["name"], "bold"), "  ", "  ".join(part for part in parts if part))
    if _of(span, telemetry.SIMULATED):
        text.append("  simulated", "yellow")
    if span["status"] == "error":
        text.append(f"  failed {_of(span, telemetry.ERROR_TYPE) or ''}".rstrip(), "red")
    return text


def _total(sum: dict[str, Any]) -> Text:
    tokens = sum["input_tokens"] + sum["output_tokens"]
    return Text(
        f"total: {sum['steps']} steps, {sum['seconds']:.1f} s, {tokens} tokens, ${sum['cost_usd']:.6f}",
        style="bold",
    )
