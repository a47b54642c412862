"""Render the panels beside the editor of a definition, as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.console.client import segment
from api.console.html import badge, dollars, moment, number, text


def fine(found: Mapping[str, Any]) -> str:
    inferred = {step: needs for step, needs in found["inferred"].items() if needs}
    count = sum(map(len, inferred.values()))
    more = f" · {count} {'dependency' if count == 1 else 'dependencies'} inferred" if count else ""
    steps = found["steps"]
    return f'<p class="good">✓ Valid: {steps} {"step" if steps == 1 else "steps"}{more}</p>'


def problems(found: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<li><button type="button" class="problem" data-line="{one["line"] or ""}">'
        f'<span class="where">{text(_place(one))}</span>'
        f"<span><b>{text(one['code'])}</b> {text(one['message'], 600)}</span></button></li>"
        for one in found
    )
    words = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    return f'<p class="bad">✕ {words}</p><ol class="problems">{rows}</ol>'


def _place(problem: Mapping[str, Any]) -> str:
    return f"line {problem['line']}" if problem["line"] else str(problem["pointer"] or "document")


def estimate(most: Mapping[str, Any]) -> str:
    """Render the upper bounds of one run."""
    facts = [f"at most {number(int(most['executions']))} executions"] if "executions" in most else []
    for key, words in (
        ("model_calls", "model calls"),
        ("input_tokens", "tokens in"),
        ("output_tokens", "tokens out"),
    ):
        if most.get(key):
            facts.append(f"{number(int(most[key]))} {words}")
    if most.get("usd") is not None:
        facts.append(dollars(float(most["usd"])))
    return " · ".join(text(one) for one in facts)


def versions(name: str, items: Sequence[Mapping[str, Any]], aliases: Mapping[str, Any]) -> str:
    named: dict[int, list[str]] = {}
    for one in aliases["items"]:
        named.setdefault(one["version"], []).append(one["alias"])
    rows = "".join(_version(name, one, named.get(one["version"], []), aliases["meant"]) for one in items)
    choices = "".join(f'<option value="{one["version"]}">@{one["version"]}</option>' for one in items)
    before = items[1]["version"] if len(items) > 1 else items[0]["version"]
    chosen = choices.replace(f'value="{before}"', f'value="{before}" selected', 1)
    return f"""<div class="pad"><div class="row compare"><label for="from">Compare</label>
<select id="from">{chosen}</select>
<label for="to">with</label><select id="to">{choices}</select><button id="compare">Show difference</button>
</div>
<ul class="versions">{rows}</ul></div>"""


def _version(name: str, one: Mapping[str, Any], named: Sequence[str], meant: int | None) -> str:
    number_ = one["version"]
    marks = '<span class="badge st-completed">✓ what the name means</span>' if number_ == meant else ""
    marks += "".join(f'<span class="badge">@{text(alias)}</span>' for alias in named)
    if one["deprecated"]:
        marks += badge("deprecated")
    retire = (
        f'<button data-undeprecate="{number_}">Undo deprecation</button>'
        if one["deprecated"]
        else f'<button data-deprecate="{number_}">Deprecate…</button>'
    )
    back = f'<button data-rollback="{number_}">Roll back to it</button>' if number_ != meant else ""
    reason = f'<p class="muted small">{text(one["deprecated"], 300)}</p>' if one["deprecated"] else ""
    return (
        f'<li><div class="row"><a href="/console/definitions/{segment(name)}?version={number_}">'
        f"<b>@{number_}</b></a>{marks}"
        f'<span class="muted small">{moment(one["created_at"])} {text(one["created_by"] or "")}</span>'
        f"</div>{reason}"
        f'<div class="row acts">{back}<button data-alias="{number_}">Alias…</button>{retire}</div></li>'
    )


def difference(found: Mapping[str, Any]) -> str:
    before, after = found["from"], found["to"]
    title = f"<h2>@{before} → @{after}</h2>"
    if not found["changes"]:
        return f'<div class="pad">{title}<p class="muted">They say the same.</p></div>'
    breaking = "".join(
        f"<li><code>{text(one['path'])}</code> {text(one['reason'])}</li>" for one in found["breaking"]
    )
    warn = (
        f'<p class="bad">Inputs that fitted before may not fit any more:</p><ul>{breaking}</ul>'
        if breaking
        else ""
    )
    parts = "".join(
        f"<li>{badge(one['change'])} {text(kind)} <b>{text(one['id'])}</b>"
        f'<span class="muted"> {text(", ".join(change["path"] for change in one["fields"]), 200)}</span></li>'
        for kind, key in (("step", "steps"), ("agent", "agents"))
        for one in found[key]
    )
    lines = "".join(
        f'<span class="{_tone(line)}">{text(line)}\n</span>' for line in found["text"].splitlines()
    )
    shown = f'<pre class="box diff" tabindex="0">{lines}</pre>'
    return f'<div class="pad">{title}{warn}<ul class="parts">{parts}</ul>{shown}</div>'


def _tone(line: str) -> str:
    if line.startswith(("+++", "---", "@@")):
        return "at"
    return {"+": "plus", "-": "minus"}.get(line[:1], "same")
