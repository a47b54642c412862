"""All that crosses Temporal: small facts and references, never a step's content.

Fields are only ever added, with a default: histories hold these for as long as runs live.
"""

from dataclasses import dataclass, field
from typing import Any

QUEUE_COLLABORATIONS = "collaborations"
QUEUE_MEMORY = "memory"
QUEUE_LEARNING = "learning"
QUEUE_PROJECTIONS = "projections"
PLATFORM_QUEUES = frozenset({QUEUE_COLLABORATIONS, QUEUE_MEMORY, QUEUE_LEARNING, QUEUE_PROJECTIONS})
"""The queues that the platform's own workers serve; no definition may name them."""

TASK_TIMEOUT_SECONDS = 2.0
"""Of a run's workflow tasks. Temporal's own 10 s would be how long a run whose worker died waits."""

MEMO_TENANT = "facilitair_tenant"
MEMO_TRACEPARENT = "facilitair_traceparent"
"""Of a sub-collaboration its parent's context, whose trace it belongs to; of any other run its caller's,
which is only linked."""
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
"""What `Fork` holds, as JSON: the run that this one goes on from."""

ENGINE = 2
"""The interpreter's semantics that new runs are pinned to; a run keeps its own to its end."""
REVISION = 1
"""What the workflow code may do that older releases' code did not. 1: obey signals, look every decision up.
The pin tells it, so that a run keeps its own without the two events that `workflow.patched` costs each."""


def started_by(workflow_id: str) -> str:
    """Return who stands as the starter of a sub-collaboration: the run that it is a step of."""
    return f"collaboration:{workflow_id}"


@dataclass(frozen=True)
class RetryRule:
    max_attempts: int
    initial_seconds: float
    backoff: float
    max_seconds: float
    never: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CatchRule:
    errors: list[str]
    """Error codes; "*" is every error."""
    then: str = ""
    """The step that takes over; empty where a value stands in for the output."""


@dataclass(frozen=True)
class PlanStep:
    """What the interpreter must know of a step to schedule it; prompts and values stay in Postgres."""

    id: str
    kind: str
    needs: list[str]
    """Steps that must have completed; if one was skipped, this one is skipped too."""
    waits: list[str]
    """Steps that must have ended either way."""
    timeout_seconds: float
    retry: RetryRule
    summary: str
    conditional: bool = False
    recalls: bool = False
    routes: bool = False
    activity: str | None = None
    """A user's own activity and the task queue it is served on."""
    task_queue: str | None = None
    branches: list[str] = field(default_factory=list)
    """`switch:branch`, or `step:!` + own id where this step takes over for one that failed: needed like
    `needs`, and met only when the step came to this branch."""
    quorum: int = 0
    """So many of needs and branches are enough, and the step starts as soon as they are; 0: all."""
    chain: str = ""
    """`quick` or `slow`: may share an activity with its neighbours; slow ones need one that heartbeats."""
    catches: list[CatchRule] = field(default_factory=list)
    priority: int = 3
    body: "Plan | None" = None
    concurrency: int = 0
    """Of a map."""
    max_failed: float = 0.0
    """Of a map: how many items may fail, as a number, or as a share when `failed_share`."""
    failed_share: bool = False
    max_iterations: int = 0
    """Of a loop."""
    compensates: bool = False
    streams: list[str] = field(default_factory=list)
    """Steps that must only have begun: this one reads what they say while they say it."""


@dataclass(frozen=True)
class Plan:
    steps: list[PlanStep]
    """In an order that respects every dependency."""


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    step: str
    status: str
    """completed, skipped, caught, or open: the condition of a step that is not run here holds."""
    branch: str = ""
    """Of a switch the branch taken; of a caught step `!` and the id of the step that takes over."""


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
    """What MEMO_PARENT held."""
    fork: dict[str, Any] | None = None
    """What MEMO_FORK held."""
    goes_on: bool = False
    """Whether the run was continued as new, and so is bound already."""
    proof: str = ""
    """What MEMO_PROOF held."""
    parent_workflow_id: str | None = None
    """Of a child workflow, in Temporal's own words: a memo alone is anybody's word."""
    request_span: str | None = None
    """What MEMO_REQUEST_SPAN held."""
    request: str | None = None
    """What MEMO_REQUEST held."""


@dataclass(frozen=True)
class Pinned:
    """What a run is bound to from its first moment on."""

    collaboration: str
    tenant: str
    version: str
    version_number: int
    traceparent: str
    plan: Plan
    engine: int = 1
    ended: list[Ended] = field(default_factory=list)
    """Top-level steps that had ended already: of a run that was continued as new, or forked."""
    seconds_left: float | None = None
    """Of the budget's time."""
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
    """Of a run that was continued as new: whether somebody had paused it."""
    paused_above: bool = False
    """Likewise: whether somebody had paused a run that it is a step of."""
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
    """step → output that stands for what it had come to."""


@dataclass(frozen=True)
class StepRequest:
    """The key of one execution, and where its spans belong."""

    collaboration: str
    tenant: str
    step: str
    traceparent: str
    iteration: int = 0
    """The innermost index of `frame`."""
    model: str | None = None
    """The model that the router chose, or a person whom it asked."""
    frame: str = ""
    """Where the step is repeated: `per_file[17]` or `per_file[17].improve[2]`; empty at the top."""
    purpose: str = ""
    """`undo` for its compensation, `budget` where people are asked for more money for it, `route` for its
    model, `verify` where its answer is judged."""
    max_output_tokens: int | None = None
    """How long an answer the router recommends, where its rule asks for that."""

    @property
    def path(self) -> str:
        """The step within its collaboration: `review`, `per_file[17].review`, `ship~undo`."""
        path = f"{self.frame}.{self.step}" if self.frame else self.step
        return f"{path}~{self.purpose}" if self.purpose else path


@dataclass(frozen=True)
class StepResult:
    """What the interpreter and a reader of the history see of a finished execution."""

    execution: str
    status: str
    """completed, skipped or caught; PAUSED where nothing was begun."""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str = "0"
    output_bytes: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class SegmentRequest:
    """Neighbouring steps of one frame for one activity. Each is recorded before the next starts."""

    collaboration: str
    tenant: str
    traceparent: str
    frame: str
    members: list[str]
    """Steps to run."""
    gates: list[str]
    """Steps whose condition to evaluate, and which to record as skipped where they cannot run."""
    ended: list[Ended]
    """How the steps ended that these depend on."""


@dataclass(frozen=True)
class SegmentResult:
    ended: list[Ended]


@dataclass(frozen=True)
class Opened:
    """A map or loop that has begun, or had."""

    count: int = 0
    """Of a map: how many items."""
    done: list[int] = field(default_factory=list)
    """Of a map: items that ended earlier, as pairs first, last+1, first, last+1 …"""
    failed: int = 0
    """Of a map: how many of those failed."""
    next: int = 0
    """Of a loop: the iteration to go on with."""
    ended: Ended | None = None
    """The whole, when it had ended already."""


@dataclass(frozen=True)
class ItemEnd:
    """The end of one item or iteration: completed, or failed with a code."""

    request: StepRequest
    """Of the map or loop itself."""
    index: int
    error_code: str | None = None
    error_message: str | None = None
    error_step: str = ""
    """The path of the step that failed."""


@dataclass(frozen=True)
class ItemEnded:
    last: bool = False
    """Of a loop: `until` holds, or the bound is reached."""


@dataclass(frozen=True)
class Caught:
    """A step failed for good and its definition says what happens instead."""

    request: StepRequest
    rule: int
    """Which entry of `catch`."""
    error_code: str
    error_message: str
    error_step: str = ""
    """The path of the step that failed: the one that catches, or one within it."""


@dataclass(frozen=True)
class RouteResult:
    model: str
    policy: str
    propensity: float
    confidence: float | None = None
    """0 to 1: the chance of success of the model, less what is not known of it; None where rules chose."""
    ask: bool = False
    """Whether people are to be asked first: the confidence is below what the agent's rule wants."""
    max_output_tokens: int | None = None
    """What the router recommends as the answer's limit, where the agent's rule lets it."""


@dataclass(frozen=True)
class RecallResult:
    hits: int
    source: str


@dataclass(frozen=True)
class ToolCall:
    """A call of a user's own activity: its arguments, or the result when it is already known."""

    execution: str
    args: Any = None
    done: StepResult | None = None


@dataclass(frozen=True)
class ToolReturn:
    request: StepRequest
    execution: str
    output: Any = None
    error_code: str | None = None
    error_message: str | None = None


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


@dataclass(frozen=True)
class ArchivePass:
    """What one archiving of tokens did."""

    executions: int
    tokens: int
    forgotten: int
    """Archives deleted, as they had been kept long enough."""


@dataclass(frozen=True)
class ReconcilePass:
    """What one look at the lost calls came to."""

    settled: int
    """Their providers told what they came to."""
    assumed: int
    """Nobody can tell: booked at the most they can have come to."""
    refunded: int
    """They never arrived."""
    left: int
    """For later, or closed by somebody else."""


@dataclass(frozen=True)
class EndingsPass:
    """What one look at running runs came to that may have ended in Temporal alone."""

    looked: int
    closed: int
    first: list[str]
    """`id: TERMINATED`, and so on."""


@dataclass(frozen=True)
class TrialsPass:
    """What one look at the A/B tests of prompts came to."""

    looked: int
    ended: list[str]
    """`name: won`, and so on."""


@dataclass(frozen=True)
class OptimizePrompt:
    """Look for better examples for a prompt."""

    id: str
    """What its budget is counted under."""
    tenant: str
    name: str
    actor: str
    limit: int
    budget_usd: str
    model: str = ""
    """Who answers; empty: who answered most often."""
    judge: str = ""
    """Who judges; empty: the reviewer's model."""
    simulated: bool = False
    """Look in simulated runs, instead of real ones."""


@dataclass(frozen=True)
class Optimized:
    """The version that came of it, which is on trial now."""

    version: int
    trial: str
    examples: int
    scored: int
    """Collaborations that it learned from or was held to."""
    held_out: int
    """Tasks that both versions answered and the judge scored."""
    present: float
    candidate: float
    model: str
    judge: str


@dataclass(frozen=True)
class ProjectionPass:
    """What one activity of a projection did: how many events it applied and whether more are waiting."""

    applied: int
    more: bool


@dataclass(frozen=True)
class Decision:
    """What a person decided: the argument of the Update `decide`."""

    path: str
    """The step that asks, `approve` or `per_file[3].approve`; `<path>~budget` where more money is asked for,
    `<path>~route` where it is a model."""
    action: str
    actor: str
    """user:<name>; the API fills it in from who is signed in."""
    groups: list[str] = field(default_factory=list)
    form: dict[str, Any] = field(default_factory=dict)
    edited: Any = None
    """What replaces the shown value, when the action edits one."""
    proof: str = ""
    """The API's signature, where a key for the API is set; see schema/temporal/signing.py."""
    task: str = ""
    """The question's id, which is new with every asking; without it the question open at `path` is meant."""


@dataclass(frozen=True)
class Asked:
    """A question to people: open, or decided already."""

    actions: list[dict[str, Any]] = field(default_factory=list)
    """[{"id", "requires": [...], "edits": name or None}]"""
    form: dict[str, Any] | None = None
    """A JSON Schema."""
    assignees: list[str] = field(default_factory=list)
    decided_by: list[str] = field(default_factory=list)
    """Actors who have decided, where several must."""
    remind_in: float | None = None
    """Seconds until people should be reminded; None: never, or done."""
    due_in: float | None = None
    """Seconds until on_timeout holds."""
    ended: Ended | None = None
    choice: str = ""
    """Of a question for a model, once it is settled: the one that a person chose."""
    task: str = ""
    """The question's id."""
    again: bool = False
    """Whether the same was asked at this path before: then only its id tells them apart."""


@dataclass(frozen=True)
class DecisionMade:
    request: StepRequest
    """Of the step that asked."""
    decision: Decision


FAILED_STEP = "step"
"""The key of a failure's detail that holds the path of the step that failed."""
OTHERS_MONEY = "others_money"
"""A detail of budget_exceeded: another budget or limit than the run's own, and asking its people for more
would be in vain."""
PAUSED = "paused"
"""`StepResult.status` of a step that must not begin now, since its run is paused."""


@dataclass(frozen=True)
class Steer:
    """A hand on a run that lives: the argument of the Updates `pause`, `resume`, `inject_feedback` and
    `adjust`. Each reads what concerns it."""

    actor: str = ""
    """user:<name>; the API fills it in from who is signed in."""
    text: str = ""
    """inject_feedback: what later prompts hold."""
    step: str = ""
    """inject_feedback: a step id, where only its prompts shall hold it."""
    agent: str = ""
    """inject_feedback: likewise of an agent; adjust: the agent to ask otherwise (empty: every agent)."""
    changes: dict[str, Any] = field(default_factory=dict)
    """adjust: any of model, temperature, max_output_tokens, system; null takes a change back."""
    proof: str = ""
    """Likewise the API's signature."""


@dataclass(frozen=True)
class Steered:
    """What an Update asks the activity `steer` to keep."""

    collaboration: str
    tenant: str
    traceparent: str
    action: str
    """pause, resume, inject_feedback or adjust."""
    steer: Steer
    id: str = ""
    """Of the Update: done again under the same one, nothing changes."""


@dataclass(frozen=True)
class ChildRun:
    """A sub-collaboration to start, or its end when it had ended."""

    workflow: str = ""
    """name@3"""
    workflow_id: str = ""
    input: Any = None
    ended: Ended | None = None
    fork: Fork | None = None
    """Of a forked run: what its sub-collaboration had done in the run that it goes on from."""
    proof: str = ""
    """The platform's signature of the start, where a key for the API is set."""


@dataclass(frozen=True)
class ChildEnd:
    request: StepRequest
    first_run_id: str
    """The sub-collaboration's UUID."""


@dataclass(frozen=True)
class ChildFailed:
    """A sub-collaboration failed, was cancelled, or could not be begun."""

    request: StepRequest
    error_code: str
    error_message: str


@dataclass(frozen=True)
class Undo:
    """A completed step to compensate, as the activity `compensate` takes it."""

    request: StepRequest
    summary: str
    timeout_seconds: float
    retry: RetryRule
    activity: str | None = None
    """A user's own activity and the task queue it is served on, where it is not a built-in tool."""
    task_queue: str | None = None
    priority: int = 3
