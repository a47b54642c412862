"""Real outcomes from a folder: what models and agents came to on tasks that many of them were given.

`tool_call_outcomes.parquet` with `tool_call_queries.parquet` (models on queries), `agent_task_trials.parquet`
(agents on tasks, several times each), `code_reviews.parquet` (what reviewers found of known issues). A folder
may hold any of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router.chance import point
from schema.errors import Refused

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_COLUMNS: Final = {
    "tool_call_outcomes": ("model", "qid", "ok", "in_tok", "out_tok", "latency_s"),
    "tool_call_queries": ("qid", "category", "question", "func_names", "func_json"),
    "agent_task_trials": ("submission", "task_id", "trial", "resolved", "instruction", "agent_s"),
    "code_reviews": ("judge", "pr", "tool", "issue", "found"),
}


@dataclass(frozen=True)
class Calls:
    """Q queries that were put to M models; NaN where nothing is known."""

    queries: tuple[str, ...]
    texts: tuple[str, ...]
    categories: NDArray[np.str_]
    """(Q,)"""
    models: tuple[str, ...]
    ok: Floats
    """(Q, M): 1 where the model's answer was right."""
    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    times: Floats | None = None
    """(Q, M): of how many outcomes `ok` is the mean; None: of one each."""

    def only(self, queries: Ints) -> "Calls":
        """Some of the queries, by their places."""
        return Calls(
            tuple(self.queries[i] for i in queries), tuple(self.texts[i] for i in queries),
            self.categories[queries], self.models, self.ok[queries], self.seconds[queries],
            self.input_tokens[queries], self.output_tokens[queries],
            None if self.times is None else self.times[queries],
        )  # fmt: skip


@dataclass(frozen=True)
class Trials:
    """N trials of agents at tasks; those whose end is not known are left out."""

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    """What each task asks."""
    agent: Ints
    """(N,) places in `agents`."""
    task: Ints
    ok: Floats
    seconds: Floats
    """(N,), NaN where not known."""


@dataclass(frozen=True)
class Reviews:
    """I known issues of pull requests, and which of T reviewers found them."""

    reviewers: tuple[str, ...]
    pulls: tuple[str, ...]
    pull: Ints
    """(I,) places in `pulls`."""
    found: Floats
    """(I, T): the share of judges who say that the reviewer found it."""


@dataclass(frozen=True)
class Outcomes:
    calls: Calls | None
    trials: Trials | None
    reviews: Reviews | None


def load(folder: Path) -> Outcomes:
    """Raises Refused, saying what was found and expected."""
    known = [name for name in _COLUMNS if (folder / f"{name}.parquet").is_file()]
    if not known:
        files = ", ".join(f"{name}.parquet" for name in _COLUMNS)
        raise Refused("router_data_missing", f"found none of {files} in {folder}; expected at least one.")
    calls = trials = reviews = None
    if "tool_call_outcomes" in known:
        calls = _calls(_read(folder, "tool_call_outcomes"), _read(folder, "tool_call_queries"))
    if "agent_task_trials" in known:
        trials = _trials(_read(folder, "agent_task_trials"))
    if "code_reviews" in known:
        reviews = _reviews(_read(folder, "code_reviews"))
    return Outcomes(calls, trials, reviews)


def split(ids: Sequence[str], test: float = 0.3) -> tuple[Ints, Ints]:
    """(places to learn from, places to judge on)."""
    judged = np.array([point(id) < test for id in ids])
    return np.flatnonzero(~judged), np.flatnonzero(judged)


def _read(folder: Path, name: str) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    path = folder / f"{name}.parquet"
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise Refused("router_data_wrong", f"{path} cannot be read: {error}") from error
    if missing := [column for column in _COLUMNS[name] if column not in table.column_names]:
        raise Refused(
            "router_data_wrong",
            f"found {path} without {', '.join(missing)}; expected the columns {', '.join(_COLUMNS[name])}.",
        )
    return {column: table[column].to_pylist() for column in _COLUMNS[name]}


def _calls(outcomes: dict[str, list[Any]], queries: dict[str, list[Any]]) -> Calls:
    places = {qid: i for i, qid in enumerate(queries["qid"])}
    models = _names(outcomes["model"])
    column = {model: j for j, model in enumerate(models)}
    found = {name: np.full((len(places), len(models)), np.nan) for name in _COLUMNS["tool_call_outcomes"][2:]}
    for k, qid in enumerate(outcomes["qid"]):
        if qid not in places:
            raise Refused("router_data_wrong", f"found the query {qid!r} in outcomes and not in queries.")
        at = places[qid], column[outcomes["model"][k]]
        for name, values in found.items():
            value = outcomes[name][k]
            # Some logs write 0 where nothing was counted.
            if value is not None and (name == "ok" or value > 0):
                values[at] = value
    texts = tuple(
        f"{question}\n{names or ''}"
        for question, names in zip(queries["question"], queries["func_names"], strict=True)
    )
    return Calls(
        tuple(places), texts, np.array(queries["category"]), models, found["ok"], found["latency_s"],
        found["in_tok"], found["out_tok"],
    )  # fmt: skip


def _trials(rows: dict[str, list[Any]]) -> Trials:
    agents, tasks = _names(rows["submission"]), _names(rows["task_id"])
    texts = dict(zip(rows["task_id"], rows["instruction"], strict=True))
    known = [k for k, resolved in enumerate(rows["resolved"]) if resolved is not None]
    agent = {name: i for i, name in enumerate(agents)}
    task = {name: i for i, name in enumerate(tasks)}
    return Trials(
        agents, tasks, tuple(texts[name] for name in tasks),
        np.array([agent[rows["submission"][k]] for k in known]),
        np.array([task[rows["task_id"][k]] for k in known]),
        np.array([float(rows["resolved"][k]) for k in known]),
        np.array([rows["agent_s"][k] or np.nan for k in known], dtype=np.float64),
    )  # fmt: skip


def _reviews(rows: dict[str, list[Any]]) -> Reviews:
    reviewers, pulls = _names(rows["tool"]), _names(rows["pr"])
    issues = sorted(set(zip(rows["pr"], rows["issue"], strict=True)))
    place = {issue: i for i, issue in enumerate(issues)}
    column = {name: j for j, name in enumerate(reviewers)}
    said = np.zeros((len(issues), len(reviewers)))
    judges = np.zeros_like(said)
    for pr, issue, tool, found in zip(rows["pr"], rows["issue"], rows["tool"], rows["found"], strict=True):
        at = place[pr, issue], column[tool]
        said[at] += found
        judges[at] += 1
    number = {name: i for i, name in enumerate(pulls)}
    pull = np.array([number[pr] for pr, _ in issues])
    return Reviews(reviewers, pulls, pull, said / np.maximum(judges, 1))


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
