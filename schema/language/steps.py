"""The closed union of step kinds. What a user writes; nothing here does anything."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

STEP_ID: Final = r"^[a-z][a-z0-9_]{0,62}$"
STEP_PATH: Final = r"^[a-z][a-z0-9_]{0,62}(\[\d{1,6}\]|\.[a-z][a-z0-9_]{0,62}|~[a-z]{1,10}\d{0,3}){0,20}$"
"""A step within its run: `review`, or `per_file[17].review` where it is repeated."""
NEED: Final = r"^[a-z][a-z0-9_]{0,62}(:[a-z][a-z0-9_]{0,62})?$"
REF: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(@([1-9]\d{0,8}|[a-z][a-z0-9_-]{0,31}))?$"
ALIAS: Final = r"^[a-z][a-z0-9_-]{0,31}$"
SELECTOR: Final = r"^([1-9][0-9]{0,8}|[a-z][a-z0-9_-]{0,31})$"
NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
PROMPT_REF: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(@[1-9]\d{0,8})?$"
DURATION: Final = r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)$"


StepId = Annotated[str, Field(pattern=STEP_ID, description="Lower case, digits and _, as CEL can name it.")]
Duration = Annotated[
    str, Field(pattern=DURATION, description="A number with its unit: 500ms, 30s, 5m, 2h, 1d.")
]
Label = Annotated[str, Field(pattern=STEP_ID, description="The name of a branch.")]
Need = Annotated[
    str, Field(pattern=NEED, description="A step id, or switch:branch for one branch of a switch.")
]
Template = Any
JsonSchema = dict[str, Any]


class Shape(BaseModel):
    """Base of all shapes: unknown fields are refused, values are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Retry(Shape):
    """Retries of a failed step. Temporal carries them out."""

    max_attempts: int = Field(default=8, ge=1, le=100, description="Attempts in all, the first one included.")
    initial: Duration = Field(default="1s", description="The pause after the first failure.")
    backoff: float = Field(
        default=2.0, ge=1, le=10, description="Each pause is so many times the one before."
    )
    max: Duration = Field(default="30s", description="No pause is longer.")
    never: list[str] = Field(
        default_factory=list, max_length=50, description="Error codes that end the step at once."
    )


class Verify(Shape):
    """Let a cheap model answer first, and another one where a verifier thinks too little of its answer."""

    by: str = Field(
        default="reviewer",
        max_length=200,
        description="Who scores the answer from 0 to 1: provider/model, or a role of the catalogue.",
    )
    accept: float = Field(default=0.7, gt=0, le=1, description="The lowest score with which it counts.")
    then: str | None = Field(
        default=None, description="Who answers instead: provider/model. Absent: the router's best candidate."
    )


class Route(Shape):
    """Let the router choose the model."""

    among: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="Models to choose from, as provider/model. Empty: the catalogue's models.",
    )
    ask_below: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="A person chooses the model where the router's confidence is lower. Absent: nobody does.",
    )
    assignees: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="Whom `ask_below` asks: user:<name> or group:<name>. Absent: everyone who may write.",
    )
    reasoning: Literal["auto"] | None = Field(
        default=None,
        description="auto: an answer may be as long as the router recommends for the task; where that cuts "
        "one, it is asked for again without. Absent: only max_output_tokens holds.",
    )
    verify: Verify | None = Field(default=None, description="Absent: the first answer counts.")


class Agent(Shape):
    """A named role with a prompt and a model or a routing rule."""

    role: str | None = Field(
        default=None, max_length=63, description="A role of the catalogue: its model and system prompt."
    )
    model: str | Route | None = Field(
        default=None, description="provider/model, a routing rule such as {}, or absent: the role's own."
    )
    system: str | None = Field(
        default=None, max_length=100_000, description="The system prompt. Absent: the role's own."
    )
    prompt: Annotated[str, Field(pattern=PROMPT_REF)] | None = Field(
        default=None, description="A stored prompt, name or name@3, instead of `system`."
    )
    skills: list[str] = Field(
        default_factory=list, max_length=20, description="Skills of the catalogue that the agent has."
    )
    tools: list[str] = Field(
        default_factory=list, max_length=20, description="Built-in tools that the model may call by itself."
    )
    max_tool_rounds: int = Field(default=5, ge=1, le=20, description="How often it may call some and go on.")
    fallback: list[str] = Field(
        default_factory=list,
        max_length=5,
        description="Models to ask in this order when the model fails, refuses or breaks off.",
    )
    first_token_timeout: Duration | None = Field(
        default=None, description="How long to wait for the first word. Absent: half of the step's timeout."
    )
    stall_timeout: Duration | None = Field(
        default=None,
        description="How long a silence within an answer may last. Absent: half of the step's timeout.",
    )
    stream: bool = Field(
        default=True, description="false: ask for the whole answer at once, of models that cannot stream."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="Absent: the provider's default.")
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Where the model must stop. Absent: the provider's limit.",
    )


class Recall(Shape):
    """Show the agent similar past work as a hint."""

    limit: int = Field(default=3, ge=1, le=10, description="At most so many pieces of past work.")
    threshold: float = Field(default=0.7, ge=0, le=1, description="Lowest cosine similarity.")


class Quorum(Shape):
    """The number of needed steps that must have completed before a step starts."""

    quorum: int = Field(ge=1, le=200, description="So many of `needs` are enough.")


class Catch(Shape):
    """The alternative to failing the run, for some errors."""

    errors: list[str] = Field(
        min_length=1,
        max_length=50,
        description='Error codes, or "*" for every error; the first match counts.',
    )
    then: StepId | None = Field(
        default=None, description="A step that runs only when this caught; the failed step counts as skipped."
    )
    value: Template = Field(
        default=None, description="The step's output instead; the step then counts as completed."
    )


class Compensate(Shape):
    """Compensation of a completed step when the run fails or is cancelled later; last done, first undone."""

    tool: str | None = Field(default=None, description="The name of a built-in tool.")
    activity: str | None = Field(default=None, max_length=200, description="The name of your own activity.")
    task_queue: str | None = Field(default=None, max_length=200, description="The queue your worker serves.")
    args: dict[str, Template] = Field(
        default_factory=dict, max_length=200, description="Arguments; the step's own output may be used."
    )


class Cache(Shape):
    """Take the output of an earlier, exactly equal execution of this tenant instead of paying again."""

    ttl: Duration = Field(default="24h", description="How old that execution may be.")


class Allowance(Shape):
    """The most that the calls of one step may cost, all attempts, answers and repetitions together."""

    usd: float | None = Field(default=None, gt=0, le=1_000_000, description="US dollars.")
    tokens: int | None = Field(default=None, ge=1, description="Input and output tokens together.")


class Expectation(Shape):
    """Something that must be true of an answer."""

    that: str = Field(description="CEL over `output`, and all that the prompt may use; true when fine.")
    message: str = Field(max_length=2_000, description="What the agent is told when it is not.")


class Reflect(Shape):
    """Show the agent what is wrong with its answer and let it answer again, within the step."""

    max: int = Field(default=2, ge=0, le=10, description="At most so many further answers.")
    expect: list[Expectation] = Field(
        default_factory=list, max_length=20, description="Checked in addition to output_schema."
    )
    repair: bool = Field(
        default=False,
        description="Mend an answer that is nearly JSON instead of asking again, if what it then says fits.",
    )


class StepBase(Shape):
    """Fields that every step has."""

    needs: list[Need] = Field(
        default_factory=list,
        max_length=200,
        description="Steps that must have completed first. References imply theirs by themselves.",
    )
    join: Literal["all", "any"] | Quorum = Field(
        default="all",
        description="How many of `needs` must have completed. With any or a quorum the step starts as soon "
        "as that many have.",
    )
    when: str | None = Field(default=None, description="CEL; the step is skipped if it is false.")
    timeout: Duration | None = Field(default=None, description="For one attempt. Absent: defaults.timeout.")
    retry: Retry | None = Field(default=None, description="Absent: defaults.retry.")
    catch: list[Catch] = Field(
        default_factory=list, max_length=20, description="What to do when the step has failed for good."
    )
    priority: int | None = Field(
        default=None, ge=1, le=5, description="1 goes before 5 where workers are short. Absent: defaults."
    )
    chain: bool | None = Field(
        default=None,
        description="Whether the step may run in one activity with its neighbours. Absent: defaults.chain.",
    )
    description: str = Field(default="", max_length=2_000, description="For people; nothing reads it.")


class AgentStep(StepBase):
    """One agent's work: a call of a model."""

    kind: Literal["agent"]
    agent: str = Field(description="The name of an agent of this definition.")
    prompt: str = Field(max_length=200_000, description="What the agent is asked; ${…} is replaced.")
    role: str | None = Field(
        default=None, max_length=63, description="What the agent does here, when not its usual role."
    )
    recall: bool | Recall = Field(default=False, description="Show the agent similar past work as a hint.")
    output_schema: JsonSchema | None = Field(
        default=None, description="A JSON Schema for the answer: the output is then JSON instead of text."
    )
    emits: Literal["definition"] | None = Field(
        default=None,
        description="The answer is a definition, checked like an upload, for a collaboration step to run.",
    )
    reflect: Reflect | None = Field(
        default=None, description="Absent: two further answers where the output must fit something."
    )
    budget: Allowance | None = Field(default=None, description="Absent: only the limits around it.")
    cache: Cache | None = Field(default=None, description="Absent: defaults.cache.")
    compensate: Compensate | None = Field(default=None, description="How to undo the step.")


class ToolStep(StepBase):
    """A call of a built-in tool, or of a user's own activity on the user's own task queue."""

    kind: Literal["tool"]
    tool: str | None = Field(default=None, description="The name of a built-in tool.")
    activity: str | None = Field(default=None, max_length=200, description="The name of your own activity.")
    task_queue: str | None = Field(default=None, max_length=200, description="The queue your worker serves.")
    args: dict[str, Template] = Field(
        default_factory=dict, max_length=200, description="Arguments: any JSON with ${…} in it."
    )
    output_schema: JsonSchema | None = Field(
        default=None, description="A JSON Schema that the result must fit."
    )
    cache: Cache | None = Field(default=None, description="Absent: every execution calls the tool.")
    compensate: Compensate | None = Field(default=None, description="How to undo the step.")


class TransformStep(StepBase):
    """A value computed from what is already there."""

    kind: Literal["transform"]
    value: Template = Field(description="Any JSON with ${…} in it.")


class Case(Shape):
    """One branch of a switch."""

    when: str = Field(description="CEL; the first case that is true is taken.")
    then: Label


class SwitchStep(StepBase):
    """Take one of several branches. Steps join a branch by `needs: ["<switch>:<branch>"]`."""

    kind: Literal["switch"]
    cases: list[Case] = Field(min_length=1, max_length=50, description="Tried in this order.")
    otherwise: Label = Field(alias="else", description="The branch taken when no case holds.")


class Body(Shape):
    """The steps that a map or a loop repeats. Their ids are unique in the whole definition; they may refer to
    each other and to all that the map or loop itself may refer to."""

    steps: dict[StepId, "Step"] = Field(min_length=1, max_length=200, description="Step id to step.")
    output: Template = Field(
        default=None,
        description="Output of one repetition. Absent: the outputs of its last steps.",
    )


class Tolerate(Shape):
    """The number of a map's repetitions that may fail. Their result is null."""

    failed: int | None = Field(default=None, ge=0, le=10_000, description="At most so many.")
    failed_percent: float | None = Field(default=None, ge=0, le=100, description="At most this share.")


class MapStep(StepBase):
    """Do the same for every item of a list, several at a time. Results keep the order of the items."""

    kind: Literal["map"]
    over: str = Field(description="CEL that yields a list. The body sees `item` and `index`.")
    max_items: int = Field(ge=1, le=10_000, description="A longer list fails the step with map_too_wide.")
    concurrency: int = Field(default=20, ge=1, le=500, description="How many items at a time.")
    tolerate: Tolerate = Field(default=Tolerate(), description="Absent: the first failure fails the step.")
    body: Body


class LoopStep(StepBase):
    """Repeat until something holds, at most so often."""

    kind: Literal["loop"]
    max_iterations: int = Field(ge=1, le=100_000, description="The bound.")
    until: str | None = Field(
        default=None,
        description="CEL after each iteration, over iter.output, iter.index, iter.carry and the body's "
        "steps. Absent: always max_iterations.",
    )
    init: Template = Field(default=None, description="iter.carry of the first iteration.")
    carry: Template = Field(
        default=None, description="iter.carry of the next iteration. Absent: it stays as it is."
    )
    on_exhausted: Literal["continue", "fail"] = Field(
        default="continue", description="What to do when `until` never held: go on, or loop_exhausted."
    )
    body: Body


class Action(Shape):
    """An action that a person may choose."""

    id: Label
    title: str = Field(default="", max_length=200, description="For people. Absent: the id.")
    requires: list[str] = Field(
        default_factory=list, max_length=50, description="Fields of the form that must be filled in."
    )
    edits: str | None = Field(
        default=None, description="The entry of `show` that the person may replace with this action."
    )


class HumanStep(StepBase):
    """Ask people, and wait for what they decide. Its `timeout` is for the whole wait."""

    kind: Literal["human"]
    title: str = Field(max_length=2_000, description="What is asked; ${…} is replaced.")
    show: dict[str, Template] = Field(
        default_factory=dict, max_length=50, description="What they see: any JSON with ${…} in it."
    )
    form: JsonSchema | None = Field(default=None, description="A JSON Schema for what they fill in.")
    actions: list[Action] = Field(
        default_factory=lambda: [Action(id="approve"), Action(id="reject")],
        min_length=1,
        max_length=20,
        description="What they can decide. Absent: approve and reject.",
    )
    assignees: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="user:<name> or group:<name>. Absent: everyone who may write.",
    )
    approvals: int = Field(
        default=1,
        ge=1,
        le=100,
        description="How many people must decide the same action; an action that can no longer reach it ends "
        "the wait at once.",
    )
    remind_after: Duration | None = Field(default=None, description="When to remind them, once and again.")
    on_timeout: Literal["fail", "escalate"] | Label = Field(
        default="fail", description="fail with human_timeout, escalate, or the id of an action."
    )
    escalate_to: list[str] = Field(
        default_factory=list, max_length=100, description="Who is asked next; the timeout then starts anew."
    )


class CollaborationStep(StepBase):
    """Run another collaboration. Its version is bound when this definition is uploaded."""

    kind: Literal["collaboration"]
    ref: Annotated[str, Field(pattern=REF)] | None = Field(
        default=None, description="name, name@3 or name@alias of a stored definition."
    )
    definition: Template = Field(
        default=None,
        description="Instead of ref: ${…} that yields a definition, checked like an upload when it is run.",
    )
    input: Template = Field(default_factory=dict, description="Its input: any JSON with ${…} in it.")
    compensate: Compensate | None = Field(default=None, description="How to undo the step.")


class WaitStep(StepBase):
    """Wait for a while or until a point in time. Exactly one of `for` and `until`."""

    kind: Literal["wait"]
    duration: Duration | None = Field(default=None, alias="for", description="How long.")
    until: str | None = Field(
        default=None, description="A template that yields a time such as 2026-01-31T09:00:00Z."
    )


Step = Annotated[
    AgentStep
    | ToolStep
    | TransformStep
    | SwitchStep
    | MapStep
    | LoopStep
    | HumanStep
    | CollaborationStep
    | WaitStep,
    Field(discriminator="kind"),
]
Body.model_rebuild()
MapStep.model_rebuild()
LoopStep.model_rebuild()

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds(duration: str) -> float:
    """A duration as the language writes it, in seconds."""
    unit = duration.lstrip("0123456789.")
    return float(duration[: -len(unit)]) * _SECONDS[unit]
