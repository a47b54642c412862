"""Render the tabs of a run's page, as HTML."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from api.console.client import segment
from api.console.html import badge, dollars, embed, moment, number, pretty, seconds, simulated, text

_SHOWN_CHARS: Final = 100_000
_HIT_CHARS: Final = 600
_MAX_SPANS: Final = 600


def lineage(run: Mapping[str, Any]) -> str:
    """Render the run's source and its forks."""
    of = run.get("lineage") or {}
    parts = []
    if source := of.get("forked_from"):
        at = f" at {', '.join(of['forked_at'])}" if of["forked_at"] else ""
        parts.append(f"forked from {_link(source)}{text(at)}")
    if parent := of.get("parent"):
        parts.append(f"step {text(parent['path'] or '')} of {_link(parent)}")
    if forks := of.get("forks"):
        parts.append(f"forks: {', '.join(_link(one) for one in forks[:5])}")
    return f'<p class="muted small">{" · ".join(parts)}</p>' if parts else ""


def _link(run: Mapping[str, Any]) -> str:
    return f'<a href="/console/runs/{segment(run["id"])}">{text(run["id"])}</a>'


def step(found: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Render one step: its attempts, output and recalled work."""
    path = str(found["step"])
    last = found["attempts"][-1]
    child = next((one for one in (run.get("lineage") or {}).get("children", []) if one["path"] == path), None)
    facts = [
        ("Agent", last["agent"]),
        ("Role", last["role"]),
        ("Model asked", last["requested_model"]),
        ("Model answered", last["model"]),
        ("Provider", last["provider"]),
        ("Ended with", _ended(last)),
        ("Runs", _link(child) if child else None),
        ("Taken from", last["reused_from"]),
    ]
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value if name == 'Runs' else text(value)}</dd></div>"
        for name, value in facts
        if value
    )
    can_fork = "." not in path and "[" not in path and "~" not in path
    fork = f'<button id="fork" data-step="{text(path)}">↳ Fork from here</button>' if can_fork else ""
    given = {"output": pretty(found["output"]), "as": "text" if isinstance(found["output"], str) else "json"}
    return f"""<div class="pad step-view"><div class="row">
<h2>{text(path)}</h2>{badge(last["status"])}{simulated(last["simulated"])}
<span class="grow"></span>{fork}</div>
<script type="application/json" id="step-output">{embed(given)}</script>
<dl class="pairs">{shown}</dl>{_attempts(found["attempts"])}{_routing(found["routing"])}{_memory(found)}
{_output(found["output"])}</div>"""


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{one['attempt']}</td><td>{badge(one['status'])}"
        + (
            f'<p class="bad small">{text(one["error"]["code"])}: {text(one["error"]["message"], 600)}</p>'
            if one["error"]
            else ""
        )
        + _again(one["retry_at"])
        + f'</td><td class="n">{number(one["input_tokens"])} → {number(one["output_tokens"])}</td>'
        f'<td class="n">{dollars(one["cost_usd"])}</td><td class="n">{seconds(one["seconds"])}</td>'
        f'<td class="n">{_first(one["first_token_seconds"])}</td></tr>'
        for one in attempts
    )
    return (
        '<div class="scroll"><table class="small-table"><caption class="sr">Attempts</caption><thead><tr>'
        "<th>#</th><th>Attempt</th>"
        '<th class="n">Tokens in → out</th><th class="n">Cost</th><th class="n">Time</th>'
        f'<th class="n">First token</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _ended(attempt: Mapping[str, Any]) -> str:
    return f"{attempt['finish_reason'] or ''}{', its JSON mended' if attempt['repaired'] else ''}"


def _again(at: str | None) -> str:
    """Until when a step waits to be tried again; nothing once that has passed."""
    if at is None or datetime.fromisoformat(at) <= datetime.now(UTC):
        return ""
    return f'<p class="muted small">tried again at {moment(at)}</p>'


def _first(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.0f} ms"


def _routing(routing: Mapping[str, Any] | None) -> str:
    if routing is None:
        return ""
    bars = "".join(
        f'<li><span class="mono">{text(model)}</span><span class="meter">'
        f'<i style="width:{chance * 100:.0f}%"></i></span>'
        f"<span>{chance * 100:.0f} %</span></li>"
        for model, chance in sorted(routing["candidates"].items(), key=lambda one: -one[1])
    )
    title = f"Routed by {text(routing['policy'])} to {text(routing['model'])}"
    return f'<h3>{title}</h3><ul class="meters">{bars}</ul>'


def _memory(found: Mapping[str, Any]) -> str:
    if found["memory_source"] is None:
        return ""
    if not found["memory"]:
        return (
            f'<h3>Memory</h3><p class="muted">Nothing similar was found ({text(found["memory_source"])}).</p>'
        )
    hits = "".join(
        f'<li><a href="/console/runs/{segment(hit["collaboration"])}">{text(hit["task"], 160)}</a>'
        f'<span class="muted"> · similar {hit["cosine"]:.2f}</span>'
        f"<details><summary>what it came to</summary>"
        f'<pre class="box">{text(hit["final_output"], _HIT_CHARS)}</pre></details></li>'
        for hit in found["memory"]
    )
    source = f'<span class="muted">from {text(found["memory_source"])}</span>'
    return f'<h3>Memory {source}</h3><ul class="hits">{hits}</ul>'


def _output(output: Any) -> str:
    if output is None:
        return ""
    return f'<h3>Output</h3><pre class="box" tabindex="0">{text(pretty(output), _SHOWN_CHARS)}</pre>'


def result(run: Mapping[str, Any]) -> str:
    """Render the run's input and output."""
    parts = []
    if run.get("error"):
        parts.append(
            f"<h3>Error</h3>"
            f'<pre class="box bad">{text(run["error"]["code"])}\n{text(run["error"]["message"])}</pre>'
        )
    for title, key in (("Output", "output"), ("Input", "input")):
        value = run.get(key)
        if isinstance(value, dict) and value and all(isinstance(one, str) for one in value.values()):
            parts += [
                f"<h3>{title} · {text(name)}</h3>"
                f'<pre class="box" tabindex="0">{text(one, _SHOWN_CHARS)}</pre>'
                for name, one in value.items()
            ]
        elif value is not None:
            parts.append(
                f'<h3>{title}</h3><pre class="box" tabindex="0">{text(_json(value), _SHOWN_CHARS)}</pre>'
            )
        else:
            parts.append(
                f"<h3>{title}</h3>"
                f'<p class="muted">{"None yet." if run["status"] == "running" else "None."}</p>'
            )
    return f'<div class="pad">{"".join(parts)}</div>'


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def trace(found: Mapping[str, Any]) -> str:
    """The spans as a waterfall, each below the one that it belongs to."""
    spans = found["spans"]
    if not spans:
        return (
            '<p class="muted pad">No spans are kept here; with an OTLP endpoint set they are kept there.</p>'
        )
    begins = {one["span_id"]: datetime.fromisoformat(one["started_at"]) for one in spans}
    first = min(begins.values())
    last = max(datetime.fromisoformat(one["ended_at"]) for one in spans)
    whole = max((last - first).total_seconds(), 0.001)
    rows = []
    for span, depth in _tree(spans)[:_MAX_SPANS]:
        left = (begins[span["span_id"]] - first).total_seconds() / whole * 100
        width = max(span["seconds"] / whole * 100, 0.15)
        model = (
            span["attributes"].get("gen_ai.response.model")
            or span["attributes"].get("gen_ai.request.model")
            or ""
        )
        rows.append(
            f'<li class="{text(span["status"])} {text(span["kind"].lower())}" '
            f'style="--depth:{min(depth, 8)}">'
            f'<span class="name" '
            f'title="{text(json.dumps(span["attributes"], indent=1), 2000)}">{text(span["name"])}'
            f'<span class="muted"> {text(model)}</span></span><span class="lane">'
            f'<i style="left:{left:.2f}%;width:{width:.2f}%"></i></span>'
            f'<span class="n">{_span_seconds(span["seconds"])}</span></li>'
        )
    more = f'<p class="muted">{len(spans) - _MAX_SPANS} more spans.</p>' if len(spans) > _MAX_SPANS else ""
    if found["next"]:
        more = '<p class="muted">There are many more spans: facilitair trace shows them all.</p>'
    return (
        f'<div class="pad">'
        f'<p class="muted small">Trace <span class="mono">{text(found["trace_id"])}</span> · '
        f"{len(spans)}{'+' if found['next'] else ''} spans · "
        f'{seconds(whole)}</p><ol class="spans">{"".join(rows)}</ol>{more}</div>'
    )


def _span_seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _tree(spans: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    known = {one["span_id"] for one in spans}
    below: dict[str, list[Mapping[str, Any]]] = {}
    for span in spans:
        parent = span["parent_id"] if span["parent_id"] in known else ""
        below.setdefault(parent or "", []).append(span)
    found: list[tuple[Mapping[str, Any], int]] = []
    waiting = [(span, 0) for span in reversed(below.get("", []))]
    while waiting:
        span, depth = waiting.pop()
        found.append((span, depth))
        waiting += [(child, depth + 1) for child in reversed(below.get(span["span_id"], []))]
    return found


def events(page: Mapping[str, Any]) -> str:
    """The run's own log."""
    if not page["items"]:
        return '<p class="muted pad">Nothing has happened yet.</p>'
    rows = "".join(
        f'<li><span class="when">{moment(one["created_at"])}</span><details><summary>'
        f"<b>{text(one['type'])}</b> "
        f'<span class="muted">{text(_gist(one["payload"]), 120)}</span></summary>'
        f'<pre class="box">{text(json.dumps(one["payload"], indent=2, ensure_ascii=False))}</pre>'
        f"</details></li>"
        for one in page["items"]
    )
    return f'<ol class="log pad">{rows}</ol>'


def _gist(payload: Mapping[str, Any]) -> str:
    shown = ("path", "step", "status", "action", "actor", "error_code", "name", "task")
    return " · ".join(str(payload[key]) for key in shown if payload.get(key))
