"""Keys of a run's memo in Temporal: who started it, for which tenant, in which trace."""

MEMO_TENANT = "facilitair_tenant"
MEMO_TRACEPARENT = "facilitair_traceparent"
"""The trace of a sub-collaboration's parent, to which it belongs; for any other run the caller's trace, which
is only linked."""
MEMO_REQUEST_SPAN = "facilitair_request_span"
"""The id of the span of the request that started the run, in the run's own trace."""
MEMO_REQUEST = "facilitair_request"
"""A digest of the request that started the run: the same request again finds the run."""
MEMO_REQUESTED_BY = "facilitair_requested_by"
BY_TEMPORAL = "temporal"
"""The user of runs that a Temporal client or Temporal's UI started without naming anybody."""
MEMO_PARENT = "facilitair_parent"
"""{"collaboration": uuid, "path": step path}: the run that this one is a step of."""
MEMO_PROOF = "facilitair_proof"
"""The API's signature of the start, where a key for the API is set; see schema/temporal/signing.py."""
MEMO_FORK = "facilitair_fork"
"""The `Fork` of a run that goes on from another, as JSON."""


def started_by(workflow_id: str) -> str:
    """Return who stands as the starter of a sub-collaboration: the run that it is a step of."""
    return f"collaboration:{workflow_id}"
