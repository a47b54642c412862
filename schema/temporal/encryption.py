"""Encryption of what lies in Temporal's histories, with keys that only the platform's processes have."""

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schema.errors import Refused

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Sealer:
    """AES-256-GCM under the first of several keys; whatever any of them sealed can be opened."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys`: 32 random bytes each, the newest first."""
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.key_id = key_id(keys[0])

    def seal(self, data: bytes) -> bytes:
        """Return nonce (12 bytes), ciphertext and tag (16 bytes)."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[self.key_id].encrypt(nonce, data, None)

    def open(self, sealed: bytes, key: str) -> bytes:
        """Return what `seal` was given; `key` is the key id noted beside it.

        Raises Refused: "payload_key_unknown", "payload_forged".
        """
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise Refused(
                "payload_key_unknown",
                f"found a payload sealed with the key {key!r}; expected one of {', '.join(self._ciphers)}. "
                "Add the key to FACILITAIR_PAYLOAD_KEYS, behind the newest.",
            )
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise Refused(
                "payload_forged", "found a payload that is not as it was sealed; it may have been changed."
            ) from error


def key_id(key: bytes) -> str:
    """Return the name under which a payload says which key sealed it: 8 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:8]


def sealer_of(keys: str) -> Sealer | None:
    """Return what seals under FACILITAIR_PAYLOAD_KEYS; None where that is empty. Raises Refused."""
    found = keys_of(keys)
    return Sealer(found) if found else None


def keys_of(text: str) -> list[bytes]:
    """Read FACILITAIR_PAYLOAD_KEYS: base64 of 32 bytes, several with commas between.

    Raises Refused("payload_keys_invalid").
    """
    return [_key(one.strip()) for one in text.split(",") if one.strip()]


def _key(text: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Refused(
            "payload_keys_invalid",
            "found a value in FACILITAIR_PAYLOAD_KEYS that is no key; expected base64 of 32 random bytes. "
            "`openssl rand -base64 32 | tr '+/' '-_'` makes one.",
        )
    return key
