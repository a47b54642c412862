"""Proofs that the platform itself started, decided or steered, for workers that take orders from Temporal.

Anyone who reaches Temporal can write any tenant into a start and any person into a decision. Where a key for
the API is set, workers therefore take both only with a proof that FACILITAIR_PAYLOAD_KEYS make.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from schema.errors import Refused
from schema.settings import Settings
from schema.temporal.encryption import keys_of
from schema.temporal.people import Decision
from schema.temporal.runs import Fork, Steer

_PURPOSE: Final = b"facilitair proof"


class Signer:
    """HMAC-SHA256 under the first of several keys; proofs of every one of them hold."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys`: those that seal payloads, the newest first."""
        self._keys = [hmac.digest(key, _PURPOSE, "sha256") for key in keys]

    def start(self, tenant: str, actor: str, id: str, type: str, fork: Fork | None = None) -> str:
        """Return the proof of a start, in hexadecimal."""
        return self._sign(_of_start(tenant, actor, id, type, fork))

    def check_start(
        self, proof: str, tenant: str, actor: str, id: str, type: str, fork: Fork | None = None
    ) -> None:
        """Raise Refused("proof_missing") unless the proof is of this start."""
        self._check(proof, _of_start(tenant, actor, id, type, fork), "the start")

    def decision(self, run: str, decision: Decision) -> Decision:
        """Return the decision with its proof; `run` is the collaboration's UUID."""
        return replace(decision, proof=self._sign(_of_decision(run, decision)))

    def check_decision(self, run: str, decision: Decision) -> None:
        self._check(decision.proof, _of_decision(run, decision), "the decision")

    def steer(self, run: str, action: str, steer: Steer) -> Steer:
        """Return what steers a run with its proof; `run` is the collaboration's UUID."""
        return replace(steer, proof=self._sign(_of_steer(run, action, steer)))

    def check_steer(self, run: str, action: str, steer: Steer) -> None:
        self._check(steer.proof, _of_steer(run, action, steer), "what steers the run")

    def _sign(self, parts: list[str]) -> str:
        return hmac.digest(self._keys[0], _joined(parts), "sha256").hex()

    def _check(self, proof: str, parts: list[str], what: str) -> None:
        signed = _joined(parts)
        if not any(
            hmac.compare_digest(hmac.digest(key, signed, "sha256").hex().encode(), proof.encode())
            for key in self._keys
        ):
            raise Refused(
                "proof_missing",
                f"found {what} {'with a wrong proof' if proof else 'without a proof'}; expected one under "
                "FACILITAIR_PAYLOAD_KEYS, since a key for the API is set. Ask the API instead, or see "
                "`proof` in examples/codec.",
            )


def signer_of(settings: Settings) -> Signer | None:
    """Return what signs and checks; None on a laptop, where no key for the API is set."""
    keys = keys_of(settings.payload_keys)
    return Signer(keys) if settings.seals_runs and keys else None


def _of_start(tenant: str, actor: str, id: str, type: str, fork: Fork | None) -> list[str]:
    return ["start", tenant, actor, id, type, *([_text(asdict(fork))] if fork else [])]


def _of_decision(run: str, decision: Decision) -> list[str]:
    named = asdict(replace(decision, proof=""))
    if not decision.task:
        del named["task"]  # as signers of older releases, which do not know it
    return ["decide", run, _text(named)]


def _of_steer(run: str, action: str, steer: Steer) -> list[str]:
    return ["steer", run, action, _text(asdict(replace(steer, proof="")))]


def _joined(parts: list[str]) -> bytes:
    """Hashes of equal length, so that no two lists of parts read alike."""
    return b"".join(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest() for part in parts)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
