"""The data converter of every Temporal client of the platform: plain JSON for people, sealed for our own."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    FailureConverter,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.exceptions import ApplicationError

from schema.settings import Settings
from schema.temporal.encryption import Sealer, sealer_of
from schema.temporal.queues import PLATFORM_QUEUES

ENCODING: Final = b"binary/encrypted"
"""The encoding and the metadata of Temporal's own samples, so that their codecs read ours in any language."""


class SealingCodec(PayloadCodec, WithSerializationContext):
    """Seals what only the platform's workers read: arguments and results of their own activities.

    With `everything` also what users' programs read and write: inputs and results of runs, updates, failures,
    and the activities of users. Those programs then need the codec of `examples/codec`.
    """

    def __init__(self, sealer: Sealer, *, everything: bool) -> None:
        self._sealer = sealer
        self._everything = everything
        self._sealing = everything

    def with_context(self, context: SerializationContext) -> "SealingCodec":
        codec = SealingCodec(self._sealer, everything=self._everything)
        if isinstance(context, ActivitySerializationContext):
            ours = context.is_local or context.activity_task_queue in PLATFORM_QUEUES
            codec._sealing = self._everything or ours
        return codec

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._seal(payload) for payload in payloads] if self._sealing else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Open what is sealed; what is not passes, such as histories that were begun without a key."""
        return [self._open(payload) for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        metadata = {"encoding": ENCODING, "encryption-key-id": self._sealer.key_id.encode()}
        return Payload(metadata=metadata, data=self._sealer.seal(payload.SerializeToString()))

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        key = payload.metadata.get("encryption-key-id", b"").decode(errors="replace")
        return Payload.FromString(self._sealer.open(payload.data, key))


def data_converter(settings: Settings) -> DataConverter:
    """Return what a client of the platform's own converts payloads with. Raises Refused."""
    sealer = sealer_of(settings.payload_keys)
    if sealer is None:
        return DataConverter.default
    everything = settings.seals_runs
    converter = dataclasses.replace(
        DataConverter.default, payload_codec=SealingCodec(sealer, everything=everything)
    )
    if everything:
        # The texts of errors quote what models and tools were given.
        converter = dataclasses.replace(
            converter, failure_converter_class=DefaultFailureConverterWithEncodedAttributes
        )
    return converter


class _WithoutTrace(FailureConverter):
    """Tells of a failure with a code what it says and no more: a trace would show the worker's files."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        if isinstance(exception, ApplicationError) and exception.type:
            exception.__traceback__ = None
        super().to_failure(exception, payload_converter, failure)  # type: ignore[safe-super]


class _PlainFailures(_WithoutTrace, DefaultFailureConverter):
    pass


class _EncodedFailures(_WithoutTrace, DefaultFailureConverterWithEncodedAttributes):
    pass


def worker_converter(settings: Settings) -> DataConverter:
    """Return the converter of `data_converter` as workers use it, who tell of failures. Raises Refused."""
    converter = data_converter(settings)
    encoded = converter.failure_converter_class is DefaultFailureConverterWithEncodedAttributes
    return dataclasses.replace(
        converter, failure_converter_class=_EncodedFailures if encoded else _PlainFailures
    )
