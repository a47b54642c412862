"""From notes to figures. Pure functions; all times in seconds of CLOCK_MONOTONIC unless a name says ms."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from bench.peers.steps import Note
from bench.peers.workloads import Cell, Shape, Workload


@dataclass(frozen=True)
class Figures:
    """What one measurement came to. None: this workload does not tell."""

    runs_finished: int
    failed: int
    """Runs that ended with an error."""
    cut: bool
    """Not all runs were done in time."""
    steps_per_s: float | None = None
    """Steps that ended, per second from the first run's start to the last one's end, or to the cut."""
    added_p50_ms: float | None = None
    """From the end of what a step depends on to the step's begin, by the peer's own process."""
    added_p95_ms: float | None = None
    lost: int | None = None
    """Runs that did not finish after the kill, or finished without some step."""
    run_twice: int | None = None
    """Steps that were begun more than once."""
    ended_twice: int | None = None
    """Of these, steps that had ended before the kill."""
    seconds_to_first_step: float | None = None
    """From the kill to the first step that begins after it."""
    seconds_to_finish: float | None = None
    """From the kill to the last step's end, when all runs finish."""


@dataclass(frozen=True)
class Row:
    """One cell for one peer: medians over the rounds, of lost runs the most."""

    peer: str
    workload: str
    step_ms: int
    size: int
    """Steps of a run."""
    concurrency: int
    runs: int
    """Started at most; `runs_finished` of them ended well."""
    steps_per_s: float | None
    added_p50_ms: float | None
    added_p95_ms: float | None
    lost: int | None
    run_twice: int | None
    ended_twice: int | None
    seconds_to_first_step: float | None
    seconds_to_finish: float | None
    runs_finished: int
    failed: int
    cut: bool
    rounds: int
    """Measurements behind the row; 0 when every one of them broke."""
    steps_per_s_by_round: list[float]


def speed(
    cell: Cell, began: float, seconds: float, notes: Iterable[Note], finished: int, failed: int
) -> Figures:
    """Of a measurement that nobody disturbed. Notes from before it began are of the warm-up."""
    counted = [note for note in notes if began <= note.seconds <= began + seconds]
    gaps = sorted(_gaps(cell.workload.shape, cell.workload.size, counted))
    return Figures(
        runs_finished=finished,
        failed=failed,
        cut=finished + failed < cell.runs,
        steps_per_s=sum(note.kind == "end" for note in counted) / seconds,
        added_p50_ms=_percentile_ms(gaps, 50),
        added_p95_ms=_percentile_ms(gaps, 95),
    )


def _gaps(shape: Shape, size: int, notes: Iterable[Note]) -> list[float]:
    """Between the end of what a step depends on and its begin; a run's first step depends on nothing.

    Told by the order in each run, since not every peer's steps know their number.
    """
    found: list[float] = []
    begins: Mapping[str, list[float]] = defaultdict(list)
    ends: Mapping[str, list[float]] = defaultdict(list)
    for note in notes:
        (begins if note.kind == "begin" else ends)[note.run].append(note.seconds)
    for run, unordered in begins.items():
        begun, ended = sorted(unordered), sorted(ends[run])
        match shape:
            case "chain" | "context":
                found += [begin - end for begin, end in zip(begun[1:], ended, strict=False)]
            case "diamond":
                found += [begin - ended[0] for begin in begun[1 : size - 1]]
                found += [begin - ended[size - 2] for begin in begun[size - 1 :]]
            case "map":
                pass  # items do not depend on each other
    return found


def _percentile_ms(ordered: Sequence[float], percent: int) -> float | None:
    if not ordered:
        return None
    return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def after_kill(
    workload: Workload,
    runs: frozenset[str],
    notes: Sequence[Note],
    killed: float,
    finished: Collection[str],
    failed: int,
) -> Figures:
    """Of runs whose worker was killed at `killed` and restarted at once."""
    ours = [note for note in notes if note.run in runs]
    begun = Counter((note.run, note.step) for note in ours if note.kind == "begin")
    ended_before = {(n.run, n.step) for n in ours if n.kind == "end" and n.seconds <= killed}
    ended = {(note.run, note.step) for note in ours if note.kind == "end"}
    again = {step for step, times in begun.items() if times > 1}
    whole = {run for run in finished if all((run, number) in ended for number in range(workload.size))}
    lost = len(runs) - len(whole)
    began_after = [note.seconds for note in ours if note.kind == "begin" and note.seconds > killed]
    ended_after = [note.seconds for note in ours if note.kind == "end" and note.seconds > killed]
    return Figures(
        runs_finished=len(finished),
        failed=failed,
        cut=len(finished) + failed < len(runs),
        lost=lost,
        run_twice=len(again),
        ended_twice=len(again & ended_before),
        seconds_to_first_step=min(began_after) - killed if began_after else None,
        seconds_to_finish=max(ended_after) - killed if ended_after and not lost else None,
    )


def row(peer: str, cell: Cell, rounds: Sequence[Figures]) -> Row:
    return Row(
        peer=peer,
        workload=cell.name,
        step_ms=cell.workload.step_ms,
        size=cell.workload.size,
        concurrency=cell.concurrency,
        runs=cell.runs,
        steps_per_s=_middle(one.steps_per_s for one in rounds),
        added_p50_ms=_middle(one.added_p50_ms for one in rounds),
        added_p95_ms=_middle(one.added_p95_ms for one in rounds),
        lost=max((one.lost for one in rounds if one.lost is not None), default=None),
        run_twice=_middle_count(one.run_twice for one in rounds),
        ended_twice=_middle_count(one.ended_twice for one in rounds),
        seconds_to_first_step=_middle(one.seconds_to_first_step for one in rounds),
        seconds_to_finish=_middle(one.seconds_to_finish for one in rounds),
        runs_finished=_middle_count(one.runs_finished for one in rounds) or 0,
        failed=max((one.failed for one in rounds), default=0),
        cut=any(one.cut for one in rounds),
        rounds=len(rounds),
        steps_per_s_by_round=[round(one.steps_per_s, 2) for one in rounds if one.steps_per_s is not None],
    )


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 2) if known else None


def _middle_count(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return median_low(known) if known else None
