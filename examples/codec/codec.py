"""Read and write a platform whose API key is set, from any program with Temporal's Python SDK.

keys = os.environ["FACILITAIR_PAYLOAD_KEYS"]
client = await Client.connect(address, data_converter=data_converter(keys))
memo = {"facilitair_proof": proof(keys, "my-review", "code-review")}
await client.execute_workflow(
    "code-review", {"file": "…"}, id="my-review", task_queue="collaborations", memo=memo
)
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)


class Codec(PayloadCodec):
    """AES-256-GCM; the first of the keys seals, every one of them opens."""

    def __init__(self, keys: str) -> None:
        found = [base64.urlsafe_b64decode(key) for key in keys.split(",")]
        self.ciphers = {hashlib.sha256(key).hexdigest()[:8].encode(): AESGCM(key) for key in found}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        name, cipher = next(iter(self.ciphers.items()))
        metadata = {"encoding": b"binary/encrypted", "encryption-key-id": name}
        sealed = []
        for payload in payloads:
            nonce = os.urandom(12)
            data = nonce + cipher.encrypt(nonce, payload.SerializeToString(), None)
            sealed.append(Payload(metadata=metadata, data=data))
        return sealed

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._open(payload) for payload in payloads]

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != b"binary/encrypted":
            return payload
        cipher = self.ciphers[payload.metadata["encryption-key-id"]]
        return Payload.FromString(cipher.decrypt(payload.data[:12], payload.data[12:], None))


def data_converter(keys: str) -> DataConverter:
    return replace(
        DataConverter.default,
        payload_codec=Codec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def proof(keys: str, id: str, type: str, tenant: str = "default", actor: str = "") -> str:
    """What the memo `facilitair_proof` of a start must hold; `type` is the definition's name."""
    key = hmac.digest(base64.urlsafe_b64decode(keys.split(",")[0]), b"facilitair proof", "sha256")
    parts = ("start", tenant, actor, id, type)
    return hmac.digest(key, b"".join(hashlib.sha256(one.encode()).digest() for one in parts), "sha256").hex()
