"""Messages that clients send over a WebSocket."""

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from api.http.bodies import MAX_JSON_BYTES
from api.http.problems import BadRequest
from api.http.shared_models import START_ID
from api.people.models import DecisionRequest
from api.runs.steering import Changes
from schema.errors import InvalidDefinition, Problem
from schema.language import document
from schema.language.steps import REF, STEP_ID
from schema.language.templates import escape
from schema.live import MAX_PLACE_CHARS
from schema.rules.steering import MAX_FEEDBACK_CHARS
from schema.values.foreign import MAX_DEPTH
from schema.values.foreign_json import NotJson, UnusableJson, read_json


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Start(_Message):
    """Begin a run and watch it; with an `id` that has begun, watch that one."""

    type: Literal["start"]
    definition: Annotated[str, Field(pattern=REF)] | None = None
    input: Any = Field(default_factory=dict)
    id: str | None = Field(default=None, pattern=START_ID)


class Watch(_Message):
    """Watch a run that has begun, from behind the `seq` of an event."""

    type: Literal["watch"]
    id: str = Field(pattern=r"^[^\x00-\x1f]{1,1000}$")
    starting_after: str = Field(default="", max_length=MAX_PLACE_CHARS)


class _Steering(_Message):
    actor: str | None = Field(default=None, pattern=r"^user:[^\x00-\x1f]{1,200}$")


class Pause(_Steering):
    type: Literal["pause", "resume"]


class Stop(_Message):
    type: Literal["stop"]


class Feedback(_Steering):
    type: Literal["inject_feedback"]
    feedback: str = Field(max_length=MAX_FEEDBACK_CHARS)
    step: Annotated[str, Field(pattern=STEP_ID)] | None = None
    agent: str = Field(default="", max_length=63)


class Adjust(_Steering):
    type: Literal["adjust"]
    changes: Changes
    agent: str = Field(default="", max_length=63)


class Decide(_Message):
    """`approve` and `reject` are the actions of that name; `decide` names any. Of several questions one is
    meant by its `task_id` or its step's `path`."""

    type: Literal["approve", "reject", "decide"]
    action: str | None = Field(default=None, max_length=63)
    task_id: UUID | None = None
    path: str | None = Field(default=None, max_length=1_000)
    form: dict[str, Any] = Field(default_factory=dict)
    edited: Any = None
    actor: str | None = Field(default=None, pattern=r"^user:[^\x00-\x1f]{1,200}$")
    groups: list[Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,200}$")]] = Field(
        default_factory=list, max_length=100
    )

    def as_request(self) -> DecisionRequest:
        action = self.action if self.type == "decide" and self.action else self.type
        return DecisionRequest(
            action=action, form=self.form, edited=self.edited, actor=self.actor, groups=self.groups
        )


class Ack(_Message):
    """A client's progress. The server waits for none: the connection itself holds a fast sender back."""

    type: Literal["ack"]
    seq: str = Field(default="", max_length=MAX_PLACE_CHARS)


Command = Pause | Stop | Feedback | Adjust | Decide | Ack
Message = Start | Watch | Command

_MESSAGES: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="type")])
_MESSAGE_BEGINS: Final = re.compile(r'\s*\{\s*("type"\s*:|$)')
_TYPES: Final = "start, watch, pause, resume, stop, adjust, inject_feedback, approve, reject, decide, ack"


def parse_first(text: str) -> Message:
    """Return what a socket's first text says: a message, or a task in plain words. Raises BadRequest."""
    return Start(type="start", input={"task": text}) if _is_plain(text) else parse(text)


def _is_plain(text: str) -> bool:
    """Tell whether a text is a task in plain words, also one that begins with a bracket or a brace. One that
    begins as a message does is none, however it goes on: a slip in it must not start a run."""
    if not text.lstrip().startswith(("{", "[")):
        return bool(text.strip())
    if _MESSAGE_BEGINS.match(text):
        return False
    try:
        read_json(text)
    except UnusableJson:
        return False
    except NotJson:
        return True
    return False


def parse(text: str) -> Message:
    """Raises BadRequest."""
    try:
        data = text.encode("utf-8", "replace")
        value = document.load(data, max_bytes=MAX_JSON_BYTES, max_depth=MAX_DEPTH)
    except InvalidDefinition as error:
        raise BadRequest("request_invalid", error.message, error.problems) from None
    try:
        return _MESSAGES.validate_python(value)
    except ValidationError as error:
        raise _fault(value, error) from None


def _fault(value: Any, error: ValidationError) -> BadRequest:
    first = error.errors()[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
        found = value.get("type") if isinstance(value, dict) else value
        return BadRequest(
            "request_invalid",
            f"found the message {repr(found)[:100]}; expected a JSON object whose `type` is one of {_TYPES}.",
        )
    pointer = "".join(f"/{escape(str(part))}" for part in first["loc"][1:])
    problem = Problem(
        "request_invalid", pointer, repr(first["input"])[:100], str(first["msg"]), "See docs/streaming.md."
    )
    return BadRequest("request_invalid", f"{pointer}: {problem.message}", [problem])
