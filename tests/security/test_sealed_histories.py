"""What Temporal's histories show to whoever can read them, with and without a key for the API."""

import asyncio
import base64
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from bench.stack import Stack
from examples.codec.codec import data_converter as published
from schema.errors import Refused
from schema.messages import QUEUE_COLLABORATIONS
from schema.sealing import Sealer, key_id, sealer_of
from schema.settings import Settings
from tests.integration.test_collaboration import unique
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


async def test_with_a_key_nothing_of_a_run_can_be_read(platform: Stack) -> None:
    name, queue = unique("keyed"), unique("own")
    await platform.store({**definition(queue), "name": name})
    address, own = platform.settings.temporal_address, await namespace(platform)
    reader = await connected(address, own, published(KEY))
    async with (
        serving(keyed(KEY, platform.settings, temporal_namespace=own)),
        Worker(reader, task_queue=queue, activities=[price]),
    ):
        handle = await reader.start_workflow(name, {"task": SECRET}, id=name, task_queue=QUEUE_COLLABORATIONS)
        assert await asyncio.wait_for(handle.result(), 60) == {"own": f"seen: {SECRET}"}
        wrong = await reader.start_workflow(name, "text", id=f"{name}-wrong", task_queue=QUEUE_COLLABORATIONS)
        with pytest.raises(WorkflowFailureError) as caught:
            await wrong.result()
        assert isinstance(caught.value.cause, ApplicationError) and caught.value.cause.type == "input_invalid"
    bare = await Client.connect(address, namespace=own)
    for id in (name, f"{name}-wrong"):
        found = await seen(bare.get_workflow_handle(id))
        # Temporal's own bookkeeping of a local activity: its id and name, no content.
        assert {where for where, encodings in found.items() if encodings != {SEALED}} <= {
            ".marker_recorded_event_attributes.details.payloads"
        }
        assert SECRET not in await text_of(bare.get_workflow_handle(id))
        with pytest.raises((RuntimeError, KeyError, WorkflowFailureError)):
            await bare.get_workflow_handle(id).result(rpc_timeout=timedelta(seconds=5))


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


@pytest.mark.parametrize("keys", ["short", "=", base64.b64encode(b"x" * 31).decode(), f"{KEY},{KEY[:-8]}"])
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
