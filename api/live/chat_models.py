"""Requests of chat clients: the messages of Vercel's AI SDK, and AG-UI's `RunAgentInput`."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from api.http.problems import BadRequest

CHAT_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"


class TextPart(BaseModel):
    """A part of a message; only those of type `text` are read."""

    type: str
    text: str = ""


class UserMessage(BaseModel):
    role: str
    parts: list[TextPart] = Field(default_factory=list, max_length=1_000, description="As the AI SDK writes.")
    content: str | list[TextPart] | None = Field(default=None, description="As AG-UI writes.")

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or self.parts if part.type == "text")


class ChatRequest(BaseModel):
    """The request of a `DefaultChatTransport`. Its `body` may add `input`."""

    id: str = Field(pattern=CHAT_ID, description="The chat's.")
    messages: list[UserMessage] = Field(min_length=1, max_length=1_000)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    input: dict[str, Any] = Field(
        default_factory=dict, description="What the definition's input holds beside `task`."
    )


class ForwardedProps(BaseModel):
    input: dict[str, Any] = Field(
        default_factory=dict, description="What the definition's input holds beside `task`."
    )


class AgentRunRequest(BaseModel):
    """AG-UI's `RunAgentInput`; the fields that are not named here are not read."""

    run_id: str = Field(alias="runId", pattern=CHAT_ID)
    messages: list[UserMessage] = Field(default_factory=list, max_length=1_000)
    forwarded_props: ForwardedProps | None = Field(default=None, alias="forwardedProps")


def input_of(messages: Sequence[UserMessage], more: dict[str, Any]) -> dict[str, Any]:
    """Return the input of the run that the last message of a user asks for. Raises BadRequest where there is
    neither a text nor an input."""
    last = next((one.text for one in reversed(messages) if one.role == "user"), "")
    if not last.strip() and not more:
        raise BadRequest(
            "request_invalid", "found no text of a user in `messages`; expected a message of role `user`."
        )
    return {"task": last, **more} if last else more
