"""Messages of a run: small facts and references, never a step's content.

Fields are only ever added, with a default: histories hold these for as long as runs live.
"""

from dataclasses import dataclass, field
from typing import Any

from schema.temporal.plan import Plan
from schema.temporal.steps import StepEnd, StepRequest

ENGINE = 2
"""The interpreter's semantics that new runs are pinned to; a run keeps its own to its end."""
REVISION = 1
"""Abilities of the workflow code that older releases lack. 1: obey signals, look every decision up. The pin
records it, so that a run keeps its own without the two events that `workflow.patched` costs each."""


@dataclass(frozen=True)
class PinRequest:
    workflow_id: str
    first_run_id: str
    name: str
    """The workflow type: `name`, or `name@3` for a certain version."""
    input: Any
    tenant: str
    traceparent: str | None
    requested_by: str | None
    parent: dict[str, Any] | None = None
    """Value of MEMO_PARENT."""
    fork: dict[str, Any] | None = None
    """Value of MEMO_FORK."""
    goes_on: bool = False
    """Whether the run was continued as new, and so is bound already."""
    proof: str = ""
    """Value of MEMO_PROOF."""
    parent_workflow_id: str | None = None
    """Parent of a child workflow, in Temporal's own words: a memo alone proves nothing."""
    request_span: str | None = None
    """Value of MEMO_REQUEST_SPAN."""
    request: str | None = None
    """Value of MEMO_REQUEST."""


@dataclass(frozen=True)
class PinnedRun:
    """The facts that bind a run from its first moment on."""

    collaboration: str
    tenant: str
    version: str
    version_number: int
    traceparent: str
    plan: Plan
    engine: int = 1
    ended: list[StepEnd] = field(default_factory=list)
    """Top-level steps that had ended already: of a run that was continued as new, or forked."""
    seconds_left: float | None = None
    """Seconds left of the budget's time."""
    ask_for_budget: bool = False
    compensates: bool = False
    """Whether any step says how to undo it."""
    over: bool = False
    """Whether the run ended within the pin: all its steps were quick."""
    output: Any = None
    error_code: str | None = None
    """Why a step that was run within the pin failed for good."""
    error_message: str | None = None
    paused: bool = False
    """Whether a run that was continued as new had been paused."""
    paused_above: bool = False
    """Whether a run around it had been paused when it was continued as new."""
    searchable: bool = False
    """Whether Temporal has the search attributes that runs set."""
    revision: int = 0
    """REVISION of the release that pinned it."""
    error_step: str = ""
    """The path of the step that failed within the pin."""


@dataclass(frozen=True)
class Fork:
    """Go on from another run: its finished steps are kept, apart from some and all that depend on them."""

    collaboration: str
    """The UUID of the run to go on from."""
    from_steps: list[str]
    """Top-level steps that run again."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """step → output that replaces its own."""


@dataclass(frozen=True)
class Finish:
    collaboration: str
    tenant: str
    traceparent: str
    status: str
    """completed or failed; `sub_state` tells cancelled from failed."""
    sub_state: str = ""
    error_code: str | None = None
    error_message: str | None = None
    with_cost: bool = False
    """Whether to return {"output", "cost_usd"}; else the output alone, as histories of older runs hold it."""
    step: str = ""
    """The path of the step that failed, where one did."""


FAILED_STEP = "step"
"""The key of a failure's detail that holds the path of the step that failed."""
OTHERS_MONEY = "others_money"
"""A detail of budget_exceeded: another budget or limit than the run's own, and asking its people for more
would be in vain."""
PAUSED = "paused"
"""`StepResult.status` of a step that must not begin now, since its run is paused."""


@dataclass(frozen=True)
class Steer:
    """A steering request: the argument of the Updates `pause`, `resume`, `inject_feedback` and
    `adjust`. Each reads what concerns it."""

    actor: str = ""
    """user:<name>; the API fills it in from who is signed in."""
    text: str = ""
    """inject_feedback: what later prompts hold."""
    step: str = ""
    """inject_feedback: a step id, where only its prompts shall hold it."""
    agent: str = ""
    """inject_feedback: only the prompts of this agent; adjust: the agent to change (empty: every agent)."""
    changes: dict[str, Any] = field(default_factory=dict)
    """adjust: any of model, temperature, max_output_tokens, system; null takes a change back."""
    proof: str = ""
    """The API's signature."""


@dataclass(frozen=True)
class SteerOrder:
    """A steering request of an Update, for the activity `steer` to record."""

    collaboration: str
    tenant: str
    traceparent: str
    action: str
    """pause, resume, inject_feedback or adjust."""
    steer: Steer
    id: str = ""
    """Id of the Update: repeating it changes nothing."""


@dataclass(frozen=True)
class ChildRun:
    """A sub-collaboration to start, or its end when it had ended."""

    workflow: str = ""
    """name@3"""
    workflow_id: str = ""
    input: Any = None
    ended: StepEnd | None = None
    fork: Fork | None = None
    """For a forked run: the work of its sub-collaboration in the source run."""
    proof: str = ""
    """The platform's signature of the start, where a key for the API is set."""


@dataclass(frozen=True)
class ChildEnd:
    request: StepRequest
    first_run_id: str
    """The sub-collaboration's UUID."""


@dataclass(frozen=True)
class ChildFailure:
    """A sub-collaboration failed, was cancelled, or could not be begun."""

    request: StepRequest
    error_code: str
    error_message: str
