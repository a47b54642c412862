"""A run that has ended on the screen: its answer, and the table of its steps."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.output import columns
from cli.watch.picture import MARKS


def steps(run: dict[str, Any], order: list[str]) -> list[dict[str, Any]]:
    """One entry per step in the plan's order: its state, and the sums of its attempts."""
    attempts: dict[str, list[dict[str, Any]]] = {step: [] for step in order}
    for attempt in run["steps"]:
        attempts.setdefault(attempt["step"], []).append(attempt)
    return [_step(id, of_step) for id, of_step in attempts.items()]


def _step(id: str, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    last = attempts[-1] if attempts else {}
    return {
        "id": id,
        "kind": last.get("kind", ""),
        "agent": last.get("agent", ""),
        "model": last.get("model", ""),
        "requested_model": last.get("requested_model"),
        "status": last.get("status", "pending"),
        "attempts": len(attempts),
        "tokens": sum(one["tokens"] for one in attempts),
        "cost_usd": round(sum(one["cost_usd"] for one in attempts), 6),
        "seconds": last.get("seconds", 0.0),
        "simulated": any(one["simulated"] for one in attempts),
        "error": last.get("error"),
    }


def result(run: dict[str, Any], of_run: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a finished run as programs read it."""
    return {
        "collaboration_id": run["id"],
        "definition": f"{run['name']}@{run['version']}",
        "status": run["status"],
        "sub_state": run["sub_state"],
        "error": run["error"],
        "output": run.get("output"),
        "seconds": run["seconds"],
        "tokens": run["tokens"],
        "cost_usd": run["cost_usd"],
        "simulated": run.get("simulated", False),
        "quality": run["quality"],
        "trace_id": run["trace_id"],
        "steps": of_run,
    }


def table(run: dict[str, Any], of_run: list[dict[str, Any]]) -> Table:
    """The steps of an ended run, and their sum."""
    found = columns("step", "agent", "model", "status", overflow="fold")
    for title in ("attempts", "tokens", "seconds", "$"):
        found.add_column(title, justify="right", no_wrap=True)
    found.add_column("")
    for one in of_run:
        found.add_row(
            one["id"],
            one["agent"],
            one["model"],
            Text(one["status"], style=MARKS[one["status"]][1]),
            str(one["attempts"] or ""),
            str(one["tokens"]),
            f"{one['seconds']:.2f}",
            f"{one['cost_usd']:.6f}",
            Text("simulated" if one["simulated"] else "", style="yellow"),
        )
    if rest := _within_others(run, of_run):
        found.add_row("in sub-collaborations", "", "", "", "", f"{rest[0]}", "", f"{rest[1]:.6f}", "")
    found.add_section()
    mark = Text("simulated" if run.get("simulated") else "", style="yellow")
    found.add_row(
        "total",
        "",
        "",
        run["sub_state"] or run["status"],
        "",
        str(run["tokens"]),
        f"{run['seconds']:.2f}",
        f"{run['cost_usd']:.6f}",
        mark,
        style="bold",
    )
    return found


def _within_others(run: dict[str, Any], of_run: list[dict[str, Any]]) -> tuple[int, float] | None:
    """(tokens, dollars) of the run's total that no step of its own has; None where it has no other."""
    tokens = run["tokens"] - sum(one["tokens"] for one in of_run)
    cost_usd = run["cost_usd"] - sum(one["cost_usd"] for one in of_run)
    return (tokens, cost_usd) if tokens > 0 or cost_usd > 1e-9 else None


def print_output(console: Console, output: Any) -> None:
    """Print a run's output: texts as text, everything else as JSON."""
    if not isinstance(output, dict):
        console.print(_text(output), markup=False)
        return
    for key, value in output.items():
        console.print(Text(f"── {key} ──", style="bold"))
        console.print(_text(value), markup=False)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def print_end(console: Console, run: dict[str, Any], of_run: list[dict[str, Any]]) -> None:
    """The answer, the steps, and what of it was simulated."""
    if run["status"] == "completed":
        print_output(console, run.get("output"))
        console.print()
    console.print(table(run, of_run))
    for waits_for in run.get("waits_for", ()):
        console.print(Text(f"\n! {waits_for}", style="yellow"))
    if run["error"]:
        console.print(Text.assemble(("\n" + run["error"]["code"], "red bold"), ": ", run["error"]["message"]))
    simulated = [one["id"] for one in of_run if one["simulated"]]
    if run.get("simulated") and not simulated:
        simulated = ["steps of sub-collaborations"]
    if simulated:
        console.print(
            Text(
                f"\nsimulated: {', '.join(simulated)}. No model was asked: the answers came from the "
                "built-in simulator. Set OPENAI_API_KEY, ANTHROPIC_API_KEY or OLLAMA_HOST before "
                "`facilitair up` for real ones.",
                style="yellow",
            )
        )
