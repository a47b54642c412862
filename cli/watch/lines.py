"""A run as lines: one per change, and what agents say as they say it."""

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.watch.events import WatchedRun
from cli.watch.picture import clean
from schema.live import LiveEvent, PeopleAsked, Steered, StepBegan, StepEnded, TokensCame


@dataclass
class _PendingText:
    path: str
    waiting: str = ""
    """Text that is not on the screen yet."""


@dataclass
class Speech:
    """Prints agents' text with the step's name on each line. Of several who speak at once, one finishes its
    line while the others wait."""

    console: Console
    speaking: dict[str, _PendingText] = field(default_factory=dict)
    on_line: str = ""
    """The execution whose line is not finished."""

    def tell(self, event: LiveEvent) -> None:
        match event:
            case StepBegan():
                self.speaking[event.execution] = _PendingText(event.path)
            case TokensCame():
                if one := self.speaking.get(event.execution):
                    one.waiting += event.text
                    self._flush()
            case StepEnded() if event.execution in self.speaking:
                self._end(event)

    def pause(self) -> None:
        """Leave the line, for somebody else to write."""
        self._break("")

    def _end(self, event: StepEnded) -> None:
        one = self.speaking[event.execution]
        if one.waiting:
            self._break(event.execution)
            self._write(event.execution, one.waiting)
        self._break("")
        del self.speaking[event.execution]
        if event.status in ("superseded", "failed"):
            why = (
                "another attempt takes over" if event.status == "superseded" else event.error_code or "failed"
            )
            self.console.print(Text(f"{one.path} │ ✗ forget this attempt: {why}", style="yellow"))
        self._flush()

    def _flush(self) -> None:
        for execution, one in self.speaking.items():
            if not one.waiting or self.on_line not in ("", execution):
                continue
            text, one.waiting = one.waiting, ""
            self._write(execution, text)

    def _write(self, execution: str, text: str) -> None:
        path = self.speaking[execution].path
        for line in text.splitlines(keepends=True):
            if self.on_line != execution:
                self.console.print(Text(f"{path} │ ", style="cyan"), end="")
            self.console.print(clean(line.rstrip("\r\n")), end="", markup=False, soft_wrap=True)
            self.on_line = execution
            if line.endswith(("\n", "\r")):
                self.console.print()
                self.on_line = ""

    def _break(self, execution: str) -> None:
        """Finish another step's open line."""
        if self.on_line not in ("", execution):
            self.console.print()
            self.on_line = ""


class ChangeLines:
    """One line per change, for output that is no terminal."""

    def __init__(self, console: Console, speech: Speech | None = None) -> None:
        self._console = console
        self._speech = speech
        self._shown = False

    def tell(self, event: LiveEvent, seen: WatchedRun) -> None:
        match event:
            case StepBegan():
                self._step(event.path, "running", event.attempt, event.agent)
            case StepEnded():
                self._step(event.path, event.status, event.attempt, event.model or event.agent)
            case PeopleAsked():
                actions = "|".join(seen.actions.get(event.task_id, [])) or "ACTION"
                whom = ", ".join(event.assignees) or "anybody"
                how = f"`facilitair decide {event.task_id} {actions}`"
                self._print(f"{event.path}: asks {whom}: {event.title}: {how}")
            case Steered():
                self._print(f"{event.action} by {event.actor}")

    def wait_for(self, told: list[str]) -> None:
        for one in told:
            self._print(f"! {one}")

    def catch_up(self, run: dict[str, Any]) -> None:
        """Print the outcome of each step of a run that had already ended."""
        if self._shown:
            return
        for one in run["steps"]:
            self._step(
                one.get("path") or one["step"], one["status"], one["attempt"], one["model"] or one["agent"]
            )

    def _step(self, path: str, status: str, attempt: int, who: str) -> None:
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self._print(f"{path}: {status}{again}{f' · {who}' if who else ''}")

    def _print(self, line: str) -> None:
        self._shown = True
        if self._speech:
            self._speech.pause()
        self._console.print(clean(line), markup=False)
