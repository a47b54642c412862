"""LangGraph with its Postgres checkpointer, every step recorded before the next starts."""

import operator
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from bench.peers.steps import Steps
from bench.peers.workloads import Workload

_Change = dict[str, Any]
"""What a node gives back: keys of the state, and what is added to them."""


class State(TypedDict):
    run: str
    done: Annotated[list[int], operator.add]
    """The numbers of the steps that have ended."""
    texts: Annotated[list[str], operator.add]
    """What the steps of the context workload came to."""


class Item(TypedDict):
    """What one item of a map is given."""

    run: str
    number: int


class LangGraph:
    def __init__(self, graphs: dict[Workload, Any], again: bool) -> None:
        self._graphs = graphs
        self._again = again

    async def run(self, workload: Workload, run: str) -> None:
        graph = self._graphs[workload]
        config: RunnableConfig = {"configurable": {"thread_id": run}}
        start: State | None = {"run": run, "done": [], "texts": []}
        if self._again and (await graph.aget_state(config)).created_at is not None:
            start = None  # from the last checkpoint on; nothing but the caller does that
        await graph.ainvoke(start, config, durability="sync")


@asynccontextmanager
async def opened(
    database_url: str, workloads: Sequence[Workload], steps: Steps, *, again: bool
) -> AsyncIterator[LangGraph]:
    """`again`: the runs to come were begun by a process that was killed."""
    # One connection: the saver takes a lock around every use, so that more would not be used.
    async with AsyncPostgresSaver.from_conn_string(database_url) as saver:
        await saver.setup()
        yield LangGraph({one: _graph(one, steps).compile(checkpointer=saver) for one in workloads}, again)


def _graph(workload: Workload, steps: Steps) -> Any:
    graph = StateGraph(State)
    match workload.shape:
        case "map":
            _add_map(graph, workload, steps)
        case "diamond":
            first, *middle, last = _add_nodes(graph, workload, steps)
            graph.add_edge(START, first)
            for name in middle:
                graph.add_edge(first, name)
            graph.add_edge(middle, last)
            graph.add_edge(last, END)
        case "chain" | "context":
            names = [START, *_add_nodes(graph, workload, steps), END]
            for before, after in pairwise(names):
                graph.add_edge(before, after)
    return graph


def _add_nodes(graph: Any, workload: Workload, steps: Steps) -> list[str]:
    names = [f"s{number}" for number in range(workload.size)]
    for number, name in enumerate(names):
        graph.add_node(
            name,
            _writing(steps, number) if workload.shape == "context" else _pausing(workload, steps, number),
        )
    return names


def _pausing(workload: Workload, steps: Steps, number: int) -> Any:
    async def pause(state: State) -> _Change:
        return {"done": [await steps.pause(state["run"], number, workload.step_seconds)]}

    return pause


def _writing(steps: Steps, number: int) -> Any:
    async def write(state: State) -> _Change:
        return {"texts": [steps.write(state["run"], number, state["texts"])]}

    return write


def _add_map(graph: Any, workload: Workload, steps: Steps) -> None:
    async def split(state: State) -> _Change:
        return {}

    def items(state: State) -> list[Send]:
        return [Send("item", Item(run=state["run"], number=number)) for number in range(workload.size)]

    async def item(given: Item) -> _Change:
        return {"done": [await steps.pause(given["run"], given["number"], workload.step_seconds)]}

    graph.add_node("split", split)
    graph.add_node("item", item)
    graph.add_edge(START, "split")
    graph.add_conditional_edges("split", items, ["item"])
    graph.add_edge("item", END)
