"""Real outcomes from a folder: models and agents on tasks that many of them were given.

`tool_call_outcomes.parquet` with `tool_call_queries.parquet` (models on queries), `agent_task_trials.parquet`
(agents on tasks, several times each), `code_reviews.parquet` (what reviewers found of known issues). A folder
may hold any of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints
from schema.chance import point
from schema.errors import Refused

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
            tuple(self.queries[i] for i in queries),
            tuple(self.texts[i] for i in queries),
            self.categories[queries],
            self.models,
            self.ok[queries],
            self.seconds[queries],
            self.input_tokens[queries],
            self.output_tokens[queries],
            None if self.times is None else self.times[queries],
        )

    def of_models(self, models: Ints) -> "Calls":
        """Some of the models, by their places."""
        return replace(
            self,
            models=tuple(self.models[m] for m in models),
            ok=self.ok[:, models],
            seconds=self.seconds[:, models],
            input_tokens=self.input_tokens[:, models],
            output_tokens=self.output_tokens[:, models],
            times=None if self.times is None else self.times[:, models],
        )


@dataclass(frozen=True)
class AgentTrials:
    """N trials of agents at tasks; those whose end is not known are left out."""

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    """Text of each task."""
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
    trials: AgentTrials | None
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


def numbers(values: Sequence[Any]) -> Floats:
    """NaN where nothing is known."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def means(at: tuple[Ints, Ints], values: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """The mean in each cell of what was told of it, NaN without any, and of how many that is."""
    known = np.isfinite(values)
    cells = at[0][known], at[1][known]
    total, times = np.zeros(shape), np.zeros(shape)
    np.add.at(total, cells, values[known])
    np.add.at(times, cells, 1)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan), times


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
    rows = {str(qid): k for k, qid in enumerate(queries["qid"])}
    places = {qid: i for i, qid in enumerate(rows)}
    models = _names(outcomes["model"])
    column = {model: j for j, model in enumerate(models)}
    asked = [str(qid) for qid in outcomes["qid"]]
    if unknown := next((qid for qid in asked if qid not in places), None):
        raise Refused("router_data_wrong", f"found the query {unknown!r} in outcomes and not in queries.")
    at = (
        np.array([places[qid] for qid in asked], dtype=np.int64),
        np.array([column[str(model)] for model in outcomes["model"]], dtype=np.int64),
    )
    found = {}
    for name in _COLUMNS["tool_call_outcomes"][2:]:
        values = numbers(outcomes[name])
        # Some logs write 0 where nothing was counted.
        values[values < 0 if name == "ok" else values <= 0] = np.nan
        found[name], _ = means(at, values, (len(places), len(models)))
    texts = tuple(f"{queries['question'][k] or ''}\n{queries['func_names'][k] or ''}" for k in rows.values())
    categories = np.array([str(queries["category"][k]) for k in rows.values()], dtype=np.str_)
    return Calls(
        tuple(places),
        texts,
        categories,
        models,
        found["ok"],
        found["latency_s"],
        found["in_tok"],
        found["out_tok"],
    )


def _trials(rows: dict[str, list[Any]]) -> AgentTrials:
    by = [str(name) for name in rows["submission"]]
    on = [str(name) for name in rows["task_id"]]
    agents, tasks = _names(by), _names(on)
    texts = {task: text or "" for task, text in zip(on, rows["instruction"], strict=True)}
    known = [k for k, resolved in enumerate(rows["resolved"]) if resolved is not None]
    agent = {name: i for i, name in enumerate(agents)}
    task = {name: i for i, name in enumerate(tasks)}
    return AgentTrials(
        agents,
        tasks,
        tuple(texts[name] for name in tasks),
        np.array([agent[by[k]] for k in known], dtype=np.int64),
        np.array([task[on[k]] for k in known], dtype=np.int64),
        np.array([float(rows["resolved"][k]) for k in known]),
        np.array([rows["agent_s"][k] or np.nan for k in known], dtype=np.float64),
    )


def _reviews(rows: dict[str, list[Any]]) -> Reviews:
    of = [(str(pr), str(issue)) for pr, issue in zip(rows["pr"], rows["issue"], strict=True)]
    reviewers, pulls = _names(rows["tool"]), _names(pr for pr, _ in of)
    issues = sorted(set(of))
    place = {issue: i for i, issue in enumerate(issues)}
    column = {name: j for j, name in enumerate(reviewers)}
    at = (
        np.array([place[issue] for issue in of], dtype=np.int64),
        np.array([column[str(tool)] for tool in rows["tool"]], dtype=np.int64),
    )
    said, _ = means(at, numbers(rows["found"]), (len(issues), len(reviewers)))
    number = {name: i for i, name in enumerate(pulls)}
    pull = np.array([number[pr] for pr, _ in issues], dtype=np.int64)
    return Reviews(reviewers, pulls, pull, np.nan_to_num(said))


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values}))
