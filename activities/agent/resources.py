"""Resources that all agents of a process share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.agent.notifications import News
from activities.agent.single_flight import Flights
from activities.agent.tokens import TokenLog
from activities.agent.tool_rounds import Run
from activities.upkeep.reconcile import Reconciler
from gateway.client import Gateway
from gateway.limits.access import Traffic
from schema.settings import Settings


@dataclass(frozen=True)
class Resources:
    engine: AsyncEngine
    gateway: Gateway
    traffic: Traffic
    flights: Flights
    reconciler: Reconciler
    tokens: TokenLog
    run_tool: Run
    news: News | None
    capture_content: bool


@asynccontextmanager
async def means(
    engine: AsyncEngine, settings: Settings, tokens: TokenLog, run_tool: Run, news: News | None = None
) -> AsyncIterator[Resources]:
    """Build what is not given, and close it at the end."""
    async with AsyncExitStack() as stack:
        gateway = Gateway(settings)
        stack.push_async_callback(gateway.close)
        traffic, flights = Traffic(engine), Flights(engine)
        stack.push_async_callback(traffic.close)
        stack.push_async_callback(flights.close)
        yield Resources(
            engine,
            gateway,
            traffic,
            flights,
            Reconciler(engine, gateway),
            tokens,
            run_tool,
            news,
            settings.capture_message_content,
        )
