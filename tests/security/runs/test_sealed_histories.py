"""What Temporal's histories show to whoever can read them, with and without a key for the API."""

import asyncio
import base64
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from api.temporal import Temporal
from examples.codec.codec import data_converter as published
from examples.codec.codec import proof
from schema.errors import Refused
from schema.settings import Settings
from schema.temporal.encryption import Sealer, key_id, sealer_of
from schema.temporal.memo import MEMO_FORK, MEMO_PARENT, MEMO_PROOF, MEMO_REQUESTED_BY, MEMO_TENANT
from schema.temporal.people import Decision
from schema.temporal.queues import QUEUE_COLLABORATIONS
from schema.temporal.runs import Steer
from schema.temporal.signing import signer_of
from tests.integration.runs.test_collaboration import failure, unique
from tests.support.stack import Stack
from workers.build import serve
from workflows.codec import ENCODING, data_converter

KEY, OLD_KEY = (base64.urlsafe_b64encode(os.urandom(32)).decode() for _ in range(2))
SECRET = "the price of the house"


def payloads(message: Message, place: str = "") -> Iterator[tuple[str, Payload]]:
    """Every payload of an event, with the path of fields to it."""
    for field, value in message.ListFields():
        where = f"{place}.{field.name}"
        for one in value.values() if hasattr(value, "values") else value if field.is_repeated else [value]:
            if isinstance(one, Payload):
                yield where, one
            elif isinstance(one, Message):
                yield from payloads(one, where)


async def seen(handle: WorkflowHandle[Any, Any]) -> dict[str, set[str]]:
    """{where in the history: encodings of what stands there}"""
    found: dict[str, set[str]] = {}
    async for event in handle.fetch_history_events():
        for where, payload in payloads(event):
            found.setdefault(where, set()).add(payload.metadata["encoding"].decode())
    return found


async def text_of(handle: WorkflowHandle[Any, Any]) -> str:
    """All that the history holds, as its bytes."""
    found = b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])
    return found.decode(errors="replace")


def definition(queue: str) -> dict[str, Any]:
    return {
        "agents": {"a": {"role": "coder"}},
        "steps": {
            "ask": {"kind": "agent", "agent": "a", "prompt": "${input.task}"},
            "own": {
                "kind": "tool",
                "activity": "price",
                "task_queue": queue,
                "args": {"of": "${input.task}"},
            },
        },
        "output": {"own": "${steps.own.output}"},
    }


@activity.defn
async def price(args: dict[str, Any]) -> str:
    return f"seen: {args['of']}"


SEALED, PLAIN = "binary/encrypted", "json/plain"
LABELS: Final = ".upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields"
"""Status, version, tenant and cost: Temporal's server searches by them, so it must read them."""


async def test_on_a_laptop_only_our_own_activities_are_sealed(platform: Stack) -> None:
    name, queue = unique("sealed"), unique("own")
    await platform.store({**definition(queue), "name": name})
    plain = await Client.connect(platform.settings.temporal_address)
    async with Worker(plain, task_queue=queue, activities=[price]):
        handle = await plain.start_workflow(
            name, {"task": SECRET}, id=name, task_queue=QUEUE_COLLABORATIONS, memo={"who": "me"}
        )
        assert await handle.result() == {"own": f"seen: {SECRET}"}
    assert await seen(handle) == {
        ".workflow_execution_started_event_attributes.input.payloads": {PLAIN},
        ".workflow_execution_started_event_attributes.memo.fields": {PLAIN},
        ".workflow_execution_completed_event_attributes.result.payloads": {PLAIN},
        # A user's own worker reads and writes plain JSON; ours is sealed.
        ".activity_task_scheduled_event_attributes.input.payloads": {SEALED, PLAIN},
        ".activity_task_completed_event_attributes.result.payloads": {SEALED, PLAIN},
        ".marker_recorded_event_attributes.details.payloads": {PLAIN, SEALED},
        ".user_metadata.summary": {PLAIN},
        LABELS: {PLAIN},
    }


def keyed(keys: str, settings: Settings | None = None, **more: str) -> Settings:
    """The settings with a key for the API."""
    changes = {"api_key": "k" * 32, "payload_keys": keys, **more}
    return (settings or Settings()).model_copy(update=changes)


async def namespace(platform: Stack) -> str:
    """A namespace of its own, so that the platform's worker does not take its runs."""
    name = unique("keyed")
    await platform.client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=86_400))
    )
    return name


async def connected(address: str, name: str, converter: DataConverter = DataConverter.default) -> Client:
    """A client of the namespace, as soon as the server knows it."""
    while True:
        client = await Client.connect(address, namespace=name, data_converter=converter)
        with suppress(RPCError):
            await client.count_workflows()
            return client
        await asyncio.sleep(0.1)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(serve([QUEUE_COLLABORATIONS], settings, stop))
    try:
        yield
    finally:
        stop.set()
        await task


@dataclass(frozen=True)
class KeyedNamespace:
    """A namespace of its own, whose worker has a key for the API."""

    platform: Stack
    namespace: str
    settings: Settings
    holder: Client
    """Of a program that has the key of payloads."""
    bare: Client
    """Of one that has not."""

    async def store(self, definition: dict[str, Any]) -> str:
        name = unique("keyed")
        await self.platform.store({**definition, "name": name})
        return name

    async def start(self, name: str, input: Any, id: str = "", **memo: Any) -> WorkflowHandle[Any, Any]:
        """Start past the API; without a memo, with the proof that the published code makes."""
        given = memo or {MEMO_PROOF: proof(KEY, id or name, name)}
        return await self.holder.start_workflow(
            name, input, id=id or name, task_queue=QUEUE_COLLABORATIONS, memo=given
        )


@pytest.fixture(scope="module")
async def keyed_worker(platform: Stack) -> AsyncIterator[KeyedNamespace]:
    address, own = platform.settings.temporal_address, await namespace(platform)
    settings = keyed(KEY, platform.settings, temporal_namespace=own)
    holder, bare = await connected(address, own, published(KEY)), await connected(address, own)
    async with serving(settings):
        yield KeyedNamespace(platform, own, settings, holder, bare)


async def test_with_a_key_nothing_of_a_run_can_be_read(keyed_worker: KeyedNamespace) -> None:
    queue = unique("own")
    name = await keyed_worker.store(definition(queue))
    async with Worker(keyed_worker.holder, task_queue=queue, activities=[price]):
        handle = await keyed_worker.start(name, {"task": SECRET})
        assert await asyncio.wait_for(handle.result(), 60) == {"own": f"seen: {SECRET}"}
        wrong = f"{name}-wrong"
        assert (await failure(await keyed_worker.start(name, "text", wrong))).type == "input_invalid"
    for id in (name, wrong):
        history = keyed_worker.bare.get_workflow_handle(id)
        # Temporal's own bookkeeping of a local activity: its id and name, no content.
        assert {where for where, encodings in (await seen(history)).items() if encodings != {SEALED}} <= {
            ".marker_recorded_event_attributes.details.payloads",
            LABELS,
        }
        assert SECRET not in await text_of(history)
        with pytest.raises((RuntimeError, KeyError, WorkflowFailureError)):
            await history.result(rpc_timeout=timedelta(seconds=5))


CHILD: dict[str, Any] = {"steps": {"a": {"kind": "transform", "value": "done"}}}
QUESTION: dict[str, Any] = {
    "steps": {
        "approve": {"kind": "human", "title": "Pay?", "actions": [{"id": "yes"}], "assignees": ["user:ada"]}
    }
}


@pytest.mark.parametrize(
    "memo",
    [
        {"who": "nobody"},
        {MEMO_PROOF: "00" * 32},
        {MEMO_TENANT: "another", MEMO_PROOF: "own"},
        {MEMO_REQUESTED_BY: "user:ada", MEMO_PROOF: "own"},
        {MEMO_PROOF: "of another id"},
        {MEMO_PROOF: "of another type"},
        {MEMO_PARENT: {"collaboration": str(uuid.uuid4()), "path": "a"}, "who": "a child"},
        {MEMO_FORK: {"collaboration": str(uuid.uuid4()), "from_steps": []}, MEMO_PROOF: "own"},
    ],
)
async def test_a_start_without_the_platforms_proof_is_refused(
    keyed_worker: KeyedNamespace, memo: dict[str, Any]
) -> None:
    name = await keyed_worker.store(CHILD)
    proofs = {
        "own": proof(KEY, name, name),
        "of another id": proof(KEY, "another", name),
        "of another type": proof(KEY, name, "another"),
    }
    if MEMO_PROOF in memo:
        memo = {**memo, MEMO_PROOF: proofs.get(memo[MEMO_PROOF], memo[MEMO_PROOF])}
    error = await failure(await keyed_worker.start(name, {}, name, **memo))
    assert error.type == "proof_missing"


async def test_what_the_platform_starts_carries_its_proof(keyed_worker: KeyedNamespace) -> None:
    child = await keyed_worker.store(CHILD)
    parent = await keyed_worker.store(
        {
            "steps": {"sub": {"kind": "collaboration", "ref": child, "input": {}}},
            "output": "${steps.sub.output}",
        }
    )
    assert await (await keyed_worker.start(parent, {})).result() == "done"
    temporal = Temporal(keyed_worker.settings)
    await temporal.start(child, {}, id=f"{child}-api", tenant="default", actor="key:ada")
    client = await temporal.client()
    assert await client.get_workflow_handle(f"{child}-api").result() == "done"


async def test_nobody_decides_or_steers_past_the_api(keyed_worker: KeyedNamespace) -> None:
    name = await keyed_worker.store(QUESTION)
    handle = await keyed_worker.start(name, {})
    run = str(handle.first_execution_run_id)
    decision = Decision("approve", "yes", "user:ada")
    for update, argument in (("decide", decision), ("pause", Steer(actor="user:ada"))):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(update, argument)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == "proof_missing"
    signer = signer_of(keyed_worker.settings)
    assert signer is not None
    other = signer.decision(str(uuid.uuid4()), decision)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("decide", other)
    temporal = Temporal(keyed_worker.settings)
    assert await temporal.steer(name, run, "pause", Steer(actor="user:ada")) == "paused"
    assert await temporal.steer(name, run, "resume", Steer(actor="user:ada")) == "running"
    assert await handle.execute_update("decide", signer.decision(run, decision)) == "decided"
    assert (await handle.result())["decision"] == "yes"


async def test_a_payload_is_opened_by_every_key_and_refused_when_changed() -> None:
    old, new = (data_converter(keyed(keys)) for keys in (OLD_KEY, f"{KEY},{OLD_KEY}"))
    [sealed] = await old.encode([{"a": 1}])
    assert await new.decode([sealed]) == [{"a": 1}]
    assert await published(f"{KEY},{OLD_KEY}").decode([sealed]) == [{"a": 1}]
    [again] = await published(KEY).encode([{"a": 1}])
    assert await new.decode([again]) == [{"a": 1}]
    with pytest.raises(Refused) as unknown:
        await old.decode([again])
    assert unknown.value.code == "payload_key_unknown"
    sealed.data = sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])
    with pytest.raises(Refused) as forged:
        await new.decode([sealed])
    assert forged.value.code == "payload_forged"


@pytest.mark.parametrize(
    "keys",
    ["short", "=", base64.b64encode(b"x" * 31).decode(), f"{KEY},{KEY[:-8]}"],
    ids=["short", "padding", "31 bytes", "second cut"],
)
def test_what_is_no_key_is_refused(keys: str) -> None:
    with pytest.raises(Refused) as caught:
        sealer_of(keys)
    assert caught.value.code == "payload_keys_invalid"


def test_two_seals_of_one_text_differ() -> None:
    sealer = Sealer([base64.urlsafe_b64decode(KEY)])
    first, second = sealer.seal(b"x"), sealer.seal(b"x")
    assert first != second
    assert (
        sealer.open(first, key_id(base64.urlsafe_b64decode(KEY)))
        == b"x"
        == sealer.open(second, sealer.key_id)
    )


def test_without_keys_nothing_is_sealed() -> None:
    assert data_converter(keyed("")) is DataConverter.default
    assert sealer_of(" , ") is None
    [payload] = [DefaultPayloadConverter().to_payload({"a": uuid.uuid4().hex})]
    assert payload.metadata["encoding"] != ENCODING
