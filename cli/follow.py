"""Watch a run to its end."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from rich.live import Live

from cli import tree
from cli.client import Api, segment
from cli.output import NothingRunning, err
from schema.errors import NotFound, Unavailable

_POLL_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 60.0
"""How long an API that stopped answering is waited for: it may be restarting, and the run goes on."""


@dataclass
class Followed:
    """A run as it was last seen, and the order of its steps."""

    run: dict[str, Any]
    order: list[str]

    @property
    def ended(self) -> bool:
        return bool(self.run["status"] != "running")

    def steps(self) -> list[dict[str, Any]]:
        return tree.steps(self.run, self.order)


def follow(
    api: Api,
    id: str,
    *,
    quiet: bool = False,
    poll_seconds: float = _POLL_SECONDS,
    on_change: Callable[[Followed], None] = lambda seen: None,
) -> Followed:
    """Show a run while it goes on; returns it, with its output, when it has ended."""
    console = err()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    shown = live if live is not None and not quiet else None
    lines = tree.Lines(silent=quiet or live is not None)
    seen = Followed(_read(api, id), [])
    with shown or nullcontext():
        while True:
            if not seen.order and seen.run["version"] is not None:
                seen.order = order_of(api, seen.run)
            lines.show(seen.run, seen.steps())
            if shown is not None:
                shown.update(tree.picture(seen.run, seen.steps()), refresh=True)
            on_change(seen)
            if seen.ended:
                break
            time.sleep(poll_seconds)
            seen.run = _read(api, id)
    if seen.run["steps"]:
        seen.run = _read(api, id, include="output")
    return seen


def _read(api: Api, id: str, **query: Any) -> dict[str, Any]:
    """The run; an API that is away for a moment is waited for."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            run: dict[str, Any] = api.get(f"/collaborations/{segment(id)}", **query)
            return run
        except (NothingRunning, Unavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def order_of(api: Api, run: dict[str, Any]) -> list[str]:
    """The steps of a run in the order of its plan."""
    try:
        plan = api.get(f"/definitions/{segment(run['name'])}/plan", version=run["version"])
    except (NotFound, Unavailable):
        return []
    return [step["id"] for step in plan["steps"]]
