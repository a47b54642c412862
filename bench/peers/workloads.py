"""What is measured: the shapes of the runs, and how many of them at a time."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal

Shape = Literal["chain", "diamond", "context", "map"]

PEERS: Final = ("facilitair-step", "facilitair-chained", "temporal-hand", "langgraph", "dbos")
WORKLOADS: Final = ("chain", "diamond", "context", "map", "kill")

OUTPUT_BYTES: Final = 64 * 1024
"""What each step of the context workload comes to."""
AT_A_TIME: Final = 100
"""Items of a map that run together, where a peer lets one choose: what a Temporal worker takes by default."""

STEP_TIMEOUT_SECONDS: Final = 10
"""Where a peer asks for one. A step that dies with its worker and has no heartbeats begins again then."""


@dataclass(frozen=True)
class Workload:
    """One run, the same for every peer."""

    shape: Shape
    size: int
    """Steps of a run. A diamond is one step, `size - 2` side by side, and one more."""
    step_ms: int = 0
    """How long a step sleeps."""

    @property
    def name(self) -> str:
        return f"peers-{self.shape}-{self.size}-{self.step_ms}"

    @property
    def step_seconds(self) -> float:
        return self.step_ms / 1_000

    @property
    def small(self) -> "Workload":
        """One to warm up with: connections are made and code is loaded before anything counts."""
        return replace(self, size=min(self.size, 5))


@dataclass(frozen=True)
class Cell:
    """One line of the result, for one peer."""

    name: str
    """One of WORKLOADS."""
    workload: Workload
    concurrency: int
    """Runs at a time; another starts when one ends."""
    runs: int


def cells(names: Collection[str], concurrency: Collection[int]) -> list[Cell]:
    """All that is asked for. Only chain and diamond have a choice of concurrency."""
    found = []
    for shaped in (Workload("chain", 10), Workload("chain", 10, 50), Workload("diamond", 22)):
        found += [Cell(shaped.shape, shaped, many, _runs(many)) for many in concurrency]
    found += [Cell("context", Workload("context", size), 1, 5) for size in (5, 10, 20, 40)]
    found.append(Cell("map", Workload("map", 2_000), 1, 1))
    found.append(Cell("kill", Workload("chain", 10, 50), 100, 100))
    return [cell for cell in found if cell.name in names]


def _runs(concurrency: int) -> int:
    """Enough to be steady where few run at a time; where many do, starting them all is what is measured."""
    return max(50, concurrency, min(2 * concurrency, 500))
