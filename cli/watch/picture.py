"""A run on a terminal while it goes on: a tree of steps, no wider and no higher than there is room."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from cli.watch.events import StepNode, WatchedRun
from schema.live import PeopleAsked

MARKS: Final = {
    "completed": ("✓", "green"),
    "running": ("▸", "cyan"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "abandoned": ("!", "yellow"),
    "superseded": ("!", "yellow"),
    "caught": ("↷", "yellow"),
    "pending": ("·", "dim"),
}
_MAX_ROWS_UNDER_WAY: Final = 4
"""Rows shown of what runs at once within a map, before their number."""
_MIN_WIDTHS: Final = (12, 6, 8)
"""Cells that a step's name, its agent and its model keep however narrow the terminal is."""
_GAP: Final = "  "


@dataclass
class PictureRow:
    """One line: a step with its numbers, or what somebody says."""

    mark: str = ""
    label: str = ""
    agent: str = ""
    model: str = ""
    numbers: tuple[str, str, str] = ("", "", "")
    """Tokens, seconds, dollars."""
    note: str = ""
    note_style: str = "dim"
    middle: str | None = None
    """Instead of agent and model."""
    text: Text | None = None
    """Instead of all of it."""
    settled: str = ""
    """Status of a step that nothing happens to: such rows give way where there is no room."""


def picture(seen: WatchedRun, now: float, width: int, height: int, *, keys: str = "") -> Group:
    """The run as it is at a time, in seconds since the epoch."""
    footer = [line for one in seen.asked for line in _question(seen, one, width)]
    footer += [_one_line(Text(f"! {clean(one)}", style="yellow"), width) for one in seen.waits_for]
    if keys and not seen.ended:
        footer.append(Text(keys, style="dim"))
    rows = [row for node in seen.root.within.values() for row in _rows(node, now, width)]
    rows = _in_height(rows, height - 1 - len(footer))
    return Group(_headline(seen, now, width), *_lines(rows, width), *footer)


def _headline(seen: WatchedRun, now: float, width: int) -> Text:
    lasted = (seen.ended_at if seen.ended else now) - seen.began_at
    if seen.ended and seen.ended.latency_ms:
        lasted = seen.ended.latency_ms / 1000
    seconds = f"{max(lasted, 0):.1f} s" if seen.began_at else ""
    counted = max(seen.root.all_tokens(), seen.ended.tokens if seen.ended else 0)
    tokens = f"{_about(seen.root)}{counted:,} tokens"
    cost = f"${seen.ended.cost_usd if seen.ended and seen.ended.cost_usd else seen.root.all_cost():.4f}"
    if seen.ended:
        state = seen.ended.sub_state or seen.ended.status
        style = "green" if seen.ended.status == "completed" else "red"
    elif seen.paused_by:
        state, style = f"paused by {seen.paused_by}", "yellow"
    else:
        state, style = ("running", "cyan") if seen.began_at else ("starting", "cyan")
    rest = _GAP.join(one for one in ("", clean(state), seconds, tokens, cost) if one or one == "")
    id = _shortened(seen.id, max(width - cell_len(rest), 8))
    found = Text.assemble((id, "bold"), _GAP, (clean(state), style), _GAP)
    found.append(_GAP.join(one for one in (seconds, tokens, cost) if one))
    return _one_line(found, width)


def _rows(node: StepNode, now: float, width: int) -> Iterator[PictureRow]:
    if not node.within:
        yield _row(node, node.name, now)
        yield from _speech(node, "    ", width, 2)
        return
    under_way = [one for one in node.all_within() if _speaks(one)]
    row = _row(node, f"{node.name} ×{node.items}" if node.items else node.name, now)
    row.middle = _summary(node, len(under_way))
    yield row
    for one in under_way[:_MAX_ROWS_UNDER_WAY]:
        yield _row(one, "  " + one.path.removeprefix(node.path).lstrip("."), now)
        yield from _speech(one, "      ", width, 1)
    if (more := len(under_way) - _MAX_ROWS_UNDER_WAY) > 0:
        yield PictureRow(text=Text(f"    … and {more} more under way", style="dim"))


def _speaks(node: StepNode) -> bool:
    """Tell whether a node runs itself rather than containing running ones."""
    if node.attempt is None and not node.asked:
        return False
    return not any(one.attempt for one in node.all_within())


def _row(node: StepNode, label: str, now: float) -> PictureRow:
    tokens, cost = node.all_tokens(), node.all_cost()
    seconds = now - node.attempt.began_at if node.attempt else node.seconds
    began = node.status not in ("pending", "skipped")
    notes = []
    if node.attempts > 1:
        notes.append(f"attempt {node.attempts}")
    if node.error:
        notes.append(node.error)
    if node.any_simulated():
        notes.append("simulated")
    quiet = not node.attempt and not node.asked and not any(one.attempt for one in node.all_within())
    return PictureRow(
        node.status,
        label,
        node.agent if node.kind in ("", "agent", "tool") else node.kind,
        node.model,
        (
            f"{_about(node)}{tokens:,}" if tokens else "",
            f"{max(seconds, 0):.1f} s" if began else "",
            f"${cost:.4f}" if cost else "",
        ),
        ", ".join(notes),
        "red" if node.status == "failed" else "yellow" if notes else "dim",
        settled=node.status if quiet and node.status != "failed" else "",
    )


def _summary(node: StepNode, under_way: int) -> str:
    """Return the progress of the steps within."""
    steps = [one for one in node.all_within() if one.kind != "item"]
    done = sum(one.status in ("completed", "skipped", "caught") for one in steps)
    failed = sum(one.status == "failed" for one in steps)
    parts = [f"{done} done"]
    if under_way:
        parts.append(f"{under_way} under way")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts)


def _speech(node: StepNode, indent: str, width: int, most: int) -> Iterator[PictureRow]:
    """The last lines of what an agent is saying: of the last one its end."""
    said = node.attempt.said if node.attempt else ""
    lines = [line for one in said.split("\n") if (line := clean(one).rstrip())]
    room = max(width - len(indent), 8)
    for at, line in enumerate(lines[-most:], 1):
        last = at == min(most, len(lines))
        shown = _ending(line, room) if last else _shortened(line, room)
        yield PictureRow(text=Text(indent + shown, style="dim italic"))


def _question(seen: WatchedRun, asked: PeopleAsked, width: int) -> list[Text]:
    whom = ", ".join(asked.assignees) or "anybody"
    # A run that asks one thing is enough to name it.
    id = seen.id if len(seen.asked) == 1 else asked.task_id
    actions = "|".join(seen.actions.get(asked.task_id, [])) or "ACTION"
    title = Text.assemble(("? ", "yellow bold"), (clean(asked.title), "bold"), f"  asks {clean(whom)}")
    # The command is there to be copied: it may take more than a line.
    return [_one_line(title, width), Text(f"  facilitair decide {shlex.quote(id)} {actions}")]


def _in_height(rows: list[PictureRow], height: int) -> list[PictureRow]:
    """Neighbours that nothing happens to become one line, where there is no room for all."""
    if len(rows) <= height:
        return rows
    found: list[PictureRow] = []
    folded: list[PictureRow] = []

    def fold() -> None:
        if len(folded) > 1:
            counts = {one.settled: 0 for one in folded}
            for one in folded:
                counts[one.settled] += 1
            told = ", ".join(f"{count} {status}" for status, count in counts.items())
            mark = folded[0].settled if len(counts) == 1 else ""
            found.append(PictureRow(mark, f"{told}", settled="folded"))
        else:
            found.extend(folded)
        folded.clear()

    for row in rows:
        if row.settled:
            folded.append(row)
        else:
            fold()
            found.append(row)
    fold()
    if len(found) > height:
        hidden = len(found) - max(height - 1, 0)
        found = [*found[: max(height - 1, 0)], PictureRow(text=Text(f"… {hidden} more lines", style="dim"))]
    return found


def _lines(rows: Sequence[PictureRow], width: int) -> Iterator[Text]:
    steps = [row for row in rows if row.text is None]
    plain = [row for row in steps if row.settled != "folded"]
    widths = [
        _widest(column)
        for column in (
            [row.label for row in plain],
            [row.agent for row in plain if row.middle is None],
            [row.model for row in plain if row.middle is None],
        )
    ]
    numbers = [_widest([row.numbers[n] for row in plain]) for n in range(3)]
    notes = min(_widest([row.note for row in plain]), max(width // 3, 12))
    taken = 2 + sum(one + len(_GAP) for one in [*numbers, notes] if one)
    fitted = _fit(widths, width - taken - sum(len(_GAP) for one in widths if one))
    for row in rows:
        yield row.text if row.text is not None else _line(row, fitted, numbers, width)


def _line(row: PictureRow, widths: Sequence[int], numbers: Sequence[int], width: int) -> Text:
    mark, style = MARKS.get(row.mark, (" ", ""))
    found = Text(f"{mark} ", style=style, no_wrap=True)
    if row.settled == "folded":
        return _one_line(found.append(row.label, "dim"), width)
    label, agent, model = widths
    dim = "dim" if row.mark in ("pending", "skipped") else "default"
    found.append(set_cell_size(_shortened(row.label, label), label), dim)
    if row.middle is None:
        for text, size in ((row.agent, agent), (row.model, model)):
            if size:
                found.append(_GAP + set_cell_size(_shortened(text, size), size), dim)
    elif size := sum(one + len(_GAP) for one in (agent, model) if one):
        found.append(_GAP + set_cell_size(_shortened(row.middle, size - len(_GAP)), size - len(_GAP)), "dim")
    else:
        found.append(_GAP + row.middle, "dim")
    for text, size in zip(row.numbers, numbers, strict=True):
        if size:
            found.append(_GAP + text.rjust(size), dim)
    if row.note:
        found.append(_GAP).append(clean(row.note), row.note_style)
    return _one_line(found, width)


def _fit(widths: Sequence[int], room: int) -> list[int]:
    """Take from the widest until there is room."""
    found = list(widths)
    while sum(found) > room:
        spare = [size - least for size, least in zip(found, _MIN_WIDTHS, strict=True)]
        if max(spare) <= 0:
            break
        widest = max(range(len(found)), key=lambda at: (spare[at] > 0, found[at], at))
        found[widest] -= 1
    return found


def _widest(texts: Sequence[str]) -> int:
    return max((cell_len(text) for text in texts), default=0)


def _about(node: StepNode) -> str:
    return "~" if node.estimated() else ""


def clean(text: str) -> str:
    """Return a model's or a person's text without control characters that move the cursor."""
    return "".join(one if one.isprintable() else " " for one in text)


def _shortened(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, max(room - 1, 0)).rstrip() + "…"


def _ending(text: str, room: int) -> str:
    if cell_len(text) <= room:
        return text
    text = text[-room:]
    while cell_len(text) > room - 1:
        text = text[1:]
    return "…" + text


def _one_line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text
