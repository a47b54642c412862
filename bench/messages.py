"""What routing messages costs by the number of edges: `python -m bench.messages --json`.

Ten edges an agent; processor time of one thread, the best of several: who else is busy counts little.
"""

import argparse
import json
import math
import sys
import time
from typing import Any, Final

import torch

from router.edges.attention import NODE_DIM, message_routing_gnn

SIZES: Final = (1_000, 10_000, 100_000)
PER_AGENT: Final = 10


def measure(times: int) -> dict[int, float]:
    """Edges → seconds of processor for one forward over them. By turns: what disturbs one disturbs all."""
    chance, gnn = torch.Generator().manual_seed(0), message_routing_gnn()
    best = dict.fromkeys(SIZES, math.inf)
    nodes = {edges: torch.randn(edges // PER_AGENT, NODE_DIM, generator=chance) for edges in SIZES}
    ends = {edges: torch.randint(edges // PER_AGENT, (2, edges), generator=chance) for edges in SIZES}
    with torch.inference_mode():
        for _ in range(times):
            for edges in SIZES:
                began = time.process_time()
                gnn(nodes[edges], ends[edges])
                best[edges] = min(best[edges], time.process_time() - began)
    return best


def report(times: int) -> dict[str, Any]:
    """Seconds by edges, microseconds an edge, and the power of the edges that the last step grows with."""
    torch.set_num_threads(1)
    seconds = measure(times)
    few, many = SIZES[-2:]
    power = math.log(seconds[many] / seconds[few]) / math.log(many / few)
    return {
        "edges_an_agent": PER_AGENT,
        "seconds": {str(edges): round(one, 5) for edges, one in seconds.items()},
        "microseconds_an_edge": {str(edges): round(one / edges * 1e6, 2) for edges, one in seconds.items()},
        "power": round(power, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=15, help="forwards of each size; the best one counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = report(arguments.times)
    if arguments.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    for edges, microseconds in found["microseconds_an_edge"].items():
        print(f"{edges:>8} edges  {found['seconds'][edges] * 1e3:9.2f} ms  {microseconds:6.2f} µs an edge")
    print(f"grows with the edges to the power of {found['power']}")


if __name__ == "__main__":
    main()
