"""Our platform and its peers, measured in turn on one machine: `python -m bench.peers [--json]`.

Needs the optional packages: `uv run --extra peers python -m bench.peers`. Starts servers of its own. A short
form: `--workloads chain --concurrency 1,50 --step-ms 0 --rounds 1 --cap 4`.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from bench.peers.figures import Row
from bench.peers.harness import compare
from bench.peers.workloads import PEERS, WORKLOADS, cells


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--peers", type=_some_of(PEERS), default=PEERS, help=",".join(PEERS))
    parser.add_argument("--workloads", type=_some_of(WORKLOADS), default=WORKLOADS, help=",".join(WORKLOADS))
    parser.add_argument(
        "--concurrency", type=_numbers, default=[1, 50, 500], help="runs at a time, of chain and diamond"
    )
    parser.add_argument("--step-ms", type=_numbers, default=[0, 50], help="how long steps take: 0,50")
    parser.add_argument("--rounds", type=int, default=3, help="measurements behind each median")
    parser.add_argument("--cap", type=float, default=12.0, help="seconds that one measurement takes at most")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = [c for c in cells(given.workloads, given.concurrency) if c.workload.step_ms in given.step_ms]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the servers and removes their files
    rows, sound = asyncio.run(compare(given.peers, chosen, given.rounds, given.cap))
    print(json.dumps([asdict(row) for row in rows], indent=1) if given.json else table(rows))
    return 0 if sound else 1


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"found {unknown[0]!r}; expected some of {','.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_COLUMNS = (
    ("peer", "peer", 19),
    ("workload", "workload", 9),
    ("step ms", "step_ms", 8),
    ("size", "size", 6),
    ("at once", "concurrency", 8),
    ("runs", "runs_finished", 6),
    ("steps/s", "steps_per_s", 9),
    ("added p50 ms", "added_p50_ms", 13),
    ("p95 ms", "added_p95_ms", 10),
    ("lost", "lost", 5),
    ("run twice", "run_twice", 10),
    ("had ended", "ended_twice", 10),
    ("finished s", "seconds_to_finish", 11),
)


def table(rows: Sequence[Row]) -> str:
    """For people. A star: not all runs were done in time."""
    lines = ["".join(title.rjust(width) for title, _, width in _COLUMNS)]
    for row in rows:
        values = asdict(row)
        cells = ["-" if values[key] is None else f"{values[key]}" for _, key, _ in _COLUMNS]
        lines.append("".join(cell.rjust(width) for cell, (*_, width) in zip(cells, _COLUMNS, strict=True)))
        lines[-1] += " *" if row.cut else ""
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
