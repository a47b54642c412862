"""The messages of an agent's conversation, as its next call sends them."""

from collections.abc import Mapping, Sequence
from typing import Any

from activities.agent import judge, prompts, tool_rounds
from activities.runs.feedback import agent_of, told
from activities.values import storable
from db.prompts.trials import ChosenPrompt
from db.runs.control import Control
from gateway.request import Message
from schema.cel.expressions import Json
from schema.language.catalogue import Catalogue
from schema.language.steps import Agent, AgentStep
from schema.rules import answers


class Conversation:
    """Between a step and its agent. People may change how the agent is asked while it goes on."""

    def __init__(
        self,
        name: str,
        step: AgentStep,
        agent: Agent,
        catalogue: Catalogue,
        chosen: ChosenPrompt | None,
        hints: list[dict[str, Any]],
        steering: Control,
    ) -> None:
        self._name, self._step, self._defined = name, step, agent
        self._catalogue, self._chosen, self._hints = catalogue, chosen, hints
        self._steering = steering
        self._messages: list[Message] = []
        self._asked = ""
        """The prompt itself, by which a stored one tells tasks apart."""
        self._told = 0
        """Number of notes already in the messages; later ones go to the end of the last message."""

    @property
    def begun(self) -> bool:
        return bool(self._messages)

    @property
    def agent(self) -> Agent:
        """As it is to be asked now."""
        return agent_of(self._defined, self._step, self._steering)

    def ask(self, scope: Mapping[str, Json]) -> None:
        """Begin with the step's prompt; raises StepError when it cannot be made."""
        self.begin([Message("user", prompts.asked(self._step, scope))])

    def begin(self, spoken: Sequence[Message]) -> None:
        """Begin with what was said, which a user said first."""
        self._asked = spoken[0].content
        self._messages = [*self._system(), *prompts.examples(self._chosen), *spoken]

    def judged_by(self, verifier: Agent, step: AgentStep, answer: str) -> "Conversation":
        """Another one, in which `verifier` is asked what an answer to this one is worth. `step` is this one's
        as he has it."""
        other = Conversation(self._name, step, verifier, self._catalogue, None, [], self._steering)
        other.begin(judge.question("", self._asked, answer))
        return other

    def as_sent(self) -> list[Message]:
        return prompts.with_feedback(self._messages, self._feedback(self._steering)[self._told :])

    def differs(self, steering: Control) -> bool:
        """Tell whether people have steered the step since this conversation was rendered."""
        name = self._step.agent
        return steering.changes_of(name) != self._steering.changes_of(name) or self._feedback(
            steering
        ) != self._feedback(self._steering)

    def follow(self, steering: Control) -> None:
        """Go on as people want it by now."""
        self._steering = steering
        if self.begun:
            spoken = (message for message in self._messages if message.role != "system")
            self._messages = [*self._system(), *spoken]

    def reply_to(self, answer: str, faults: list[str]) -> None:
        """Go on with an answer and with what is wrong with it."""
        json_wanted = self._step.output_schema is not None or self._step.emits is not None
        reply = answers.feedback(faults, json_wanted=json_wanted)
        # Some providers refuse an empty message.
        said = storable(answer) if answer.strip() else "(no answer)"
        self._go_on([Message("assistant", said), Message("user", reply)])

    def hear(self, kept: dict[str, Any]) -> None:
        """Continue with the results of a round of tools."""
        self._go_on(tool_rounds.messages(kept))

    def _go_on(self, messages: list[Message]) -> None:
        self._messages = [*self.as_sent(), *messages]
        self._told = len(self._feedback(self._steering))

    def _system(self) -> list[Message]:
        return prompts.system(self._step, self.agent, self._hints, self._catalogue, self._chosen, self._asked)

    def _feedback(self, steering: Control) -> list[str]:
        return told(self._name, self._step.agent, steering)
