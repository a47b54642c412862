"""Nothing that reads what runs have taught mixes simulated runs with real ones. The readers list themselves:
a new one is refused here until it says which runs it reads, or why that is no question."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graph import queries
from schema.tables import router
from schema.tables.columns import metadata

ROOT: Final = Path(__file__).parents[3]
TAUGHT: Final = {
    *(name for name, table in vars(router).items() if metadata.tables.get(name) is table),
    "task_vectors",
    "prompt_trials",
} - {"collaborations", "routing_decisions"}  # What ran and what was chosen teach nothing by themselves.
"""Tables of what was learned from runs, and of what is learned from."""

NO_QUESTION: Final = {
    # What is asked for by its own id or number says itself which it is.
    "db.router.checkpoints.content",
    "db.router.checkpoints.last_of_training",
    "db.router.checkpoints.of_training",
    "db.router.checkpoints.find",
    "db.router.checkpoints.promote",
    "db.router.checkpoints.followed",
    "db.router.checkpoints.note_outcomes",
    "db.router.checkpoints.note_followed",
    "db.router.checkpoints.save_training",
    "db.router.checkpoints.save_milestone",
    "db.router.trainings.find",
    "db.router.trainings.note_data",
    "db.router.trainings.note_epoch",
    "db.router.trainings.note_figures",
    "db.router.trainings.end",
    "db.prompts.trials.latest",
    "db.prompts.trials.find",
    "db.prompts.trials.require_none",
    "db.prompts.trials.running",
    "db.prompts.trials.stop",
    # One run's own.
    "db.router.outcomes.tell",
    "db.router.edges.decided",
    "db.router.edges.decide",
    "db.runs.vectors.completed",
    "db.runs.vectors.save",
    # Both kinds are wanted, or simulated ones alone.
    "db.router.edges.meet",
    "db.prompts.prompts.page",
    "db.prompts.prompts.remove",
    "db.runs.forgetting.count",
    "db.runs.forgetting.lessons",
    "db.router.checkpoints.tenants",
    "db.runs.vectors.embedded_to",
    "db.router.tried_edges.sources",
}


def _functions() -> Iterator[tuple[str, str]]:
    """(name, its text with that of all that it uses of its module) of the public functions in db/."""
    for file in sorted((ROOT / "db").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        parts: dict[str, str] = {}
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom):
                parts |= {alias.asname or alias.name: f"import {alias.name}" for alias in node.names}
            parts |= dict.fromkeys(_defined(node), ast.get_source_segment(source, node) or "")
        for name, text in parts.items():
            if re.match(rf"(async )?def {name}\b", text) and not name.startswith("_"):
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                yield f"{module}.{name}", _whole(name, parts)


def _defined(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [node.name]
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _whole(name: str, parts: dict[str, str]) -> str:
    seen, waiting = {name}, [name]
    while waiting:
        used = set(re.findall(r"\w+", parts[waiting.pop()])) & parts.keys() - seen
        seen |= used
        waiting += used
    return "\n".join(parts[one] for one in sorted(seen))


def _reads(text: str) -> bool:
    tables = "|".join(sorted(TAUGHT))
    return bool(re.search(rf"(?:FROM|JOIN|UPDATE|INTO|import) (?:{tables})\b|\brun\.quality_score\b", text))


_SAYS: Final = re.compile(r"\bsimulated\)? ?==? ?|, simulated\b")


def test_every_reader_of_what_was_taught_says_of_which_runs() -> None:
    readers = {name: text for name, text in _functions() if _reads(text)}
    assert len(readers) > 30, "the readers are no longer found"
    silent = {name for name, text in readers.items() if not _SAYS.search(text)}
    assert silent - NO_QUESTION == set()
    assert NO_QUESTION - readers.keys() == set(), "these read nothing of the kind any more"


def test_every_stored_question_asks_about_runs_of_one_kind() -> None:
    for name in queries.names():
        asked = queries.of_kind(name)
        before, _, after = asked.partition("= $simulated")
        assert "coalesce(t.simulated" in before and "RETURN" in after, name
        assert "(t:Task)" in before, f"{name} calls its tasks otherwise"
