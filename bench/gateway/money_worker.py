"""A worker of the money measurement: does the agent steps that it is sent, as a real one would.

Started by bench.gateway.money_driver; it ends when nobody can send any more, or is killed before.
"""

import asyncio
from multiprocessing.connection import Connection
from typing import Any

from temporalio.exceptions import ApplicationError

from activities.agent.activity import AgentActivity
from activities.agent.tokens import TokenLog
from activities.guard import translate
from db.engine import async_engine
from db.wakeups import Bell
from schema.temporal.steps import StepRequest
from tests.support.runs import means_of


def work(line: "Connection[Any, Any]", database_url: str, simulator_url: str) -> None:
    asyncio.run(_work(line, database_url, simulator_url))


async def _work(line: "Connection[Any, Any]", database_url: str, simulator_url: str) -> None:
    engine = async_engine(database_url, pool_size=12)
    bell = Bell(database_url)
    tokens = TokenLog(database_url, bell)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    doing: set[asyncio.Task[None]] = set()
    async with means_of(engine, simulator_url, tokens) as means:
        agents = AgentActivity(means)

        def take() -> None:
            try:
                task = loop.create_task(_do(agents, line.recv(), line))
            except EOFError:
                loop.remove_reader(line.fileno())
                over.set()
            else:
                doing.add(task)
                task.add_done_callback(doing.discard)

        loop.add_reader(line.fileno(), take)
        await over.wait()
    await tokens.close()
    await bell.close()
    await engine.dispose()


async def _do(agents: AgentActivity, unit: dict[str, Any], line: "Connection[Any, Any]") -> None:
    end = {"number": unit.pop("number"), "code": "", "again": False, "after": 0.0, "said": ""}
    try:
        await agents.agent(StepRequest(**unit))
    except Exception as error:
        told = translate(error)
        assert isinstance(told, ApplicationError)
        after = told.next_retry_delay
        end |= {
            "code": told.type,
            "again": not told.non_retryable,
            "said": told.message,
            "after": after.total_seconds() if after else 0.0,
        }
    line.send(end)
