"""Build and wire a worker's clients and activities."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker

from activities.guard import ErrorInterceptor
from activities.runs.callers import CallerInterceptor
from db import secrets
from db.engine import async_engine, transaction
from db.loop_watch import LoopWatch
from db.runs.admission import Admission
from db.runs.journal import Journal
from db.wakeups import Bell
from infra.disk import Disk
from schema.garbage_collection import settle
from schema.settings import Settings
from schema.temporal.queues import QUEUE_COLLABORATIONS, QUEUE_LEARNING, QUEUE_MEMORY, QUEUE_PROJECTIONS
from schema.temporal.signing import signer_of
from workflows.client import connect, keep_own, registers_search_attributes
from workflows.codec import worker_converter
from workflows.collaboration import FAILURE_TYPES, Collaboration

# A dead worker's runs are taken over when its sticky queue times out: Temporal's own 10 s would show.
STICKY_TIMEOUT: Final = timedelta(seconds=1)
# A workflow task is held while its quick steps run. More of them at a time would only wait for each other,
# and their time with the server would run out.
WORKFLOW_TASKS: Final = 60
GRACE: Final = timedelta(seconds=5)
OWN_SECONDS: Final = 30.0
"""Between two looks at what stands under the platform's own ids."""
# By default a heartbeat is held back for 80 % of its timeout, and a busy second then costs a paid call.
HEARTBEAT_PACE: Final = timedelta(seconds=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltWorker:
    """A worker, and what its process should load once it polls: before, loading would delay a takeover."""

    worker: Worker
    load: Callable[[], object] | None = None
    needs: bool = False
    """Whether it is ready only when that is loaded: what it does before would take as long."""


def _interceptors(engine: AsyncEngine, client: Client) -> list[Interceptor]:
    """Return the interceptors of every activity. The first is the outermost: it translates the others' errors
    too."""
    return [ErrorInterceptor(), CallerInterceptor(engine, client)]


@asynccontextmanager
async def _collaborations(client: Client, settings: Settings) -> AsyncIterator[BuiltWorker]:
    from activities.agent.activity import AgentActivity
    from activities.agent.notifications import News
    from activities.agent.resources import means
    from activities.agent.tokens import TokenLog
    from activities.improve.optimize import OptimizeActivity
    from activities.people.questions import HumanActivity
    from activities.routing.route import RouteActivity
    from activities.runs.children import ChildrenActivity
    from activities.runs.finish import FinishActivity
    from activities.runs.pin import PinActivity
    from activities.runs.repeat import RepeatActivity
    from activities.runs.segment import SegmentActivity
    from activities.runs.steering import SteerActivity
    from activities.runs.undo import UndoActivity
    from activities.runs.user_call import UserCallActivity
    from activities.tools.activity import ToolActivity
    from activities.tools.http import HttpTool
    from gateway.client import warm_up

    async with AsyncExitStack() as stack:
        bell = Bell(settings.database_url)
        engine = async_engine(settings.database_url, pool_size=20, bell=bell)
        tokens = TokenLog(settings.database_url, bell)
        journal = Journal(settings.database_url, bell)
        http = HttpTool(settings.http_tool_allow)
        news = News(settings.database_url)
        tool = ToolActivity(engine, http)
        for close in (engine.dispose, bell.close, news.close, http.close, journal.close, tokens.close):
            stack.push_async_callback(close)
        agents = await stack.enter_async_context(means(engine, settings, tokens, tool.run, news))
        agent = AgentActivity(agents)
        segment = SegmentActivity(engine, journal, tool, agent.agent)
        signer, admission = signer_of(settings), Admission(engine, settings)
        disk = Disk(settings.data, settings.disk_reserve_mib)
        searchable = await registers_search_attributes(client)
        pin = PinActivity(engine, journal, segment, admission, disk, signer, searchable=searchable)
        user_call, repeat, finish = (
            UserCallActivity(engine),
            RepeatActivity(engine),
            FinishActivity(engine, journal),
        )
        human = HumanActivity(engine, signer)
        children, undo = ChildrenActivity(engine, admission, signer), UndoActivity(engine, tool.run)
        activities: list[Callable[..., Any]] = [
            pin.pin,
            user_call.begin_call,
            user_call.end_call,
            repeat.open,
            repeat.end_item,
            repeat.close,
            repeat.caught,
            repeat.begin_wait,
            repeat.end_wait,
            finish.finish,
            segment.segment,
            segment.chain,
            human.ask,
            human.record_decision,
            human.remind,
            human.expire,
            human.withdraw,
            human.ask_budget,
            human.ask_route,
            children.begin_child,
            children.end_child,
            children.fail_child,
            undo.compensations,
            undo.compensate,
            agent.agent,
            segment.tool,
            OptimizeActivity(agents).optimize_prompt,
            RouteActivity(engine, agents.gateway.destinations).route,
            SteerActivity(engine, signer).steer,
        ]
        worker = Worker(
            client,
            task_queue=QUEUE_COLLABORATIONS,
            workflows=[Collaboration],
            activities=activities,
            interceptors=_interceptors(engine, client),
            max_cached_workflows=2_000,
            max_concurrent_activities=300,
            max_concurrent_local_activities=200,
            max_concurrent_workflow_tasks=WORKFLOW_TASKS,
            sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
            max_eager_activity_reservations_per_workflow_task=20,
            graceful_shutdown_timeout=GRACE,
            workflow_failure_exception_types=FAILURE_TYPES,
            max_heartbeat_throttle_interval=HEARTBEAT_PACE,
            # Our one workflow is our own code, and the replay tests run it in the sandbox: here it would
            # only import the interpreter anew for every run.
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        # litellm takes 3 s to import, and 15 s where it has to be compiled.
        yield BuiltWorker(worker, warm_up, needs=True)


@asynccontextmanager
async def _memory(client: Client, settings: Settings) -> AsyncIterator[BuiltWorker]:
    from activities.routing.recall import RecallActivity
    from gateway.destinations import Destinations
    from memory.client import WeaviateMemory
    from router.data.encoder import encode, is_loaded

    engine = async_engine(settings.database_url)
    memory = WeaviateMemory(settings)
    recall = RecallActivity(engine, memory, encode, Destinations(settings), is_loaded)
    try:
        worker = Worker(
            client,
            task_queue=QUEUE_MEMORY,
            activities=[recall.recall],
            interceptors=_interceptors(engine, client),
            graceful_shutdown_timeout=GRACE,
        )
        # torch and the model take some seconds; the first step that recalls should not wait for them.
        yield BuiltWorker(worker, lambda: encode(["warm up"]))
    finally:
        await memory.close()
        await engine.dispose()


@asynccontextmanager
async def _learning(client: Client, settings: Settings) -> AsyncIterator[BuiltWorker]:
    from activities.routing.learn import LearnActivity
    from activities.routing.rollouts import RolloutsActivity
    from workflows.learning import Learn, LearnAll
    from workflows.upkeep import Rollouts

    engine = async_engine(settings.database_url)
    learn, rollouts = LearnActivity(engine), RolloutsActivity(engine)
    try:
        worker = Worker(
            client,
            task_queue=QUEUE_LEARNING,
            workflows=[Learn, LearnAll, Rollouts],
            activities=[
                learn.due_to_learn,
                learn.collect_outcomes,
                learn.train_router,
                learn.judge_training,
                learn.register_checkpoint,
                learn.end_training,
                rollouts.look_at_rollouts,
            ],
            interceptors=_interceptors(engine, client),
            graceful_shutdown_timeout=GRACE,
            # Each may hold a tenant's outcomes in memory, and take a processor.
            max_concurrent_activities=4,
        )
        yield BuiltWorker(worker)
    finally:
        await engine.dispose()


@asynccontextmanager
async def _projections(client: Client, settings: Settings) -> AsyncIterator[BuiltWorker]:
    from activities.improve.trials import TrialsActivity
    from activities.upkeep.archive import ArchiveActivity
    from activities.upkeep.ended_runs import EndingsActivity
    from activities.upkeep.projections import GraphCopy, MemoryCopy, ProjectActivity, VectorCopy
    from activities.upkeep.reconcile import ReconcileActivity, Reconciler
    from activities.upkeep.verify import VerifyActivity
    from gateway.client import Gateway
    from graph import client as graph_client
    from graph import verify as graph_verify
    from memory import verify as memory_verify
    from memory.client import WeaviateMemory
    from router.data.encoder import ENCODER, encode
    from workflows.upkeep import Archive, CloseEnded, Optimize, Projection, Reconcile, Trials, VerifyCopies

    bell = Bell(settings.database_url)
    engine = async_engine(settings.database_url, bell=bell)
    journal = Journal(settings.database_url, bell)
    memory = WeaviateMemory(settings)
    graph = graph_client.connect(settings)
    gateway = Gateway(settings)
    project = ProjectActivity(
        engine,
        {
            "vectors": VectorCopy(engine, encode),
            "memory": MemoryCopy(engine, memory, encode),
            "graph": GraphCopy(graph),
        },
    )
    verify = VerifyActivity(
        {
            "graph": partial(graph_verify.check, engine, graph),
            "memory": partial(memory_verify.check, engine, memory, ENCODER, encode),
        }
    )
    try:
        worker = Worker(
            client,
            task_queue=QUEUE_PROJECTIONS,
            workflows=[Projection, Archive, VerifyCopies, Reconcile, CloseEnded, Trials, Optimize],
            activities=[
                project.project,
                ArchiveActivity(engine, settings).archive_tokens,
                verify.verify_copies,
                ReconcileActivity(Reconciler(engine, gateway)).reconcile_calls,
                TrialsActivity(engine).look_at_trials,
                EndingsActivity(engine, journal, client).close_ended,
            ],
            interceptors=_interceptors(engine, client),
            graceful_shutdown_timeout=GRACE,
            sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        )
        yield BuiltWorker(worker)
    finally:
        for close in (memory.close, graph.close, gateway.close, journal.close, bell.close, engine.dispose):
            await close()


_BUILDERS: Final = {
    QUEUE_COLLABORATIONS: _collaborations,
    QUEUE_MEMORY: _memory,
    QUEUE_LEARNING: _learning,
    QUEUE_PROJECTIONS: _projections,
}


async def serve(queues: list[str], settings: Settings, stop: asyncio.Event) -> None:
    """Serve the queues until `stop` is set, then let running activities finish for a few seconds."""
    client = await connect(settings.temporal_address, settings.temporal_namespace, worker_converter(settings))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(LoopWatch(f"worker-{queues[0]}").watching())
        served = [await stack.enter_async_context(_BUILDERS[queue](client, settings)) for queue in queues]
        for one in served:
            await stack.enter_async_context(one.worker)
        if QUEUE_PROJECTIONS in queues:
            secret = await _naming(settings)
            await keep_own(client, secret)
            stack.push_async_callback(_ended, asyncio.create_task(_keep_on(client, secret)))
        await _load(one for one in served if one.needs)
        _tell_ready()
        _log.info("Worker serving", extra={"queues": queues})
        await _load(one for one in served if not one.needs)
        settle()
        await stop.wait()
        _log.info("Worker stopping")


async def _load(served: Iterable[BuiltWorker]) -> None:
    for load in (one.load for one in served if one.load):
        with contextlib.suppress(Exception):  # the user of it meets the error and reports it
            await asyncio.to_thread(load)


async def _naming(settings: Settings) -> bytes:
    engine = async_engine(settings.database_url)
    try:
        async with transaction(engine) as connection:
            return await secrets.find(connection, secrets.NAMING)
    finally:
        await engine.dispose()


async def _keep_on(client: Client, secret: bytes) -> None:
    """Look again and again at what stands under the platform's own ids."""
    while True:
        await asyncio.sleep(OWN_SECONDS)
        try:
            await keep_own(client, secret)
        except (RPCError, RuntimeError):  # Temporal is away, and the next look comes
            _log.warning("Platform workflows could not be checked", exc_info=True)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _tell_ready() -> None:
    """A supervisor waits for this file."""
    if path := os.environ.get("FACILITAIR_READY_FILE"):
        Path(path).write_text(str(os.getpid()))
