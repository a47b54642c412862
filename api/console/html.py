"""Pieces of pages. Whatever a user or a model wrote passes through `text`."""

import json
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

MARKS: Final = {
    "pending": "○",
    "running": "▶",
    "completed": "✓",
    "failed": "✕",
    "skipped": "–",
    "caught": "↷",
    "abandoned": "!",
    "paused": "❚❚",
    "waiting": "?",
    "cancelled": "■",
    "superseded": "✕",
    "starting": "○",
    "no_output": "∅",
    "open": "?",
    "decided": "✓",
    "expired": "!",
}
"""Status → what shows it beside its colour."""


def text(value: object, most: int = 0) -> str:
    """Text that stays text; `most` characters of it."""
    found = str(value)
    return escape(found if not most or len(found) <= most else f"{found[: most - 1]}…")


def badge(status: str) -> str:
    mark = MARKS.get(status, "·")
    return f'<span class="badge st-{text(status)}"><i aria-hidden="true">{mark}</i>{text(status)}</span>'


def simulated(is_so: bool) -> str:
    if not is_so:
        return ""
    hint = "Answered by the offline simulator, not by a real model"
    return f'<span class="badge simulated" title="{hint}">simulated</span>'


def kinds(shown: bool, **query: str) -> str:
    """Render the switch between real and simulated runs, which a page never mixes."""
    links = "".join(
        f'<a class="button chip" href="?{urlencode(query | {"simulated": str(of).lower()})}"'
        f"{' aria-current=page' if of == shown else ''}>{name}</a>"
        for of, name in ((False, "Real runs"), (True, "Simulated runs"))
    )
    return f'<nav class="chips" aria-label="Which runs">{links}</nav>'


def moment(iso: str) -> str:
    """A time that the browser shows in its own zone."""
    return f'<time datetime="{text(iso)}">{text(iso[:19].replace("T", " "))}</time>'


def seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def brief(seconds: float) -> str:
    """A time that may be short, without more digits than one reads."""
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def dollars(value: float) -> str:
    return f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def pretty(value: Any) -> str:
    """A value as a person reads it: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def embed(value: Any) -> str:
    """JSON within a script element of a page: nothing in it can end the element."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def for_js(value: Any) -> str:
    """JSON as JavaScript source."""
    return json.dumps(value, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def empty(title: str, hint: str) -> str:
    return f'<div class="empty"><p>{text(title)}</p><p class="muted">{hint}</p></div>'
