"""Build the request of an agent's next call, and the key under which equal steps find its answer. Pure."""

from dataclasses import dataclass, replace

from activities.agent import tool_rounds
from activities.agent.conversation import Conversation
from activities.agent.money import DEFAULT_MAX_OUTPUT_TOKENS
from activities.agent.verification import RoutingRuleState
from gateway.client import Gateway
from gateway.destinations import Destination
from gateway.request import ModelRequest, Timeouts
from schema.cel.expressions import Json
from schema.language.catalogue import Catalogue
from schema.language.steps import AgentStep, seconds
from schema.rules import answers, planning
from schema.temporal.steps import StepRequest


@dataclass(frozen=True)
class RequestBuilder:
    """Everything that decides a call, at one moment of the step."""

    step: AgentStep
    request: StepRequest
    conversation: Conversation
    catalogue: Catalogue
    rule: RoutingRuleState
    model: str
    rounds: int
    """Tool rounds so far."""

    def tools(self) -> tuple[str, ...]:
        """Return the tools that the model may call; none in a turn or a verdict."""
        return () if self.request.purpose else self.catalogue.tools_of(self.conversation.agent)

    def build(self, seconds_left: float) -> ModelRequest:
        agent = self.conversation.agent
        first, stall = agent.first_token_timeout, agent.stall_timeout
        return ModelRequest(
            model=self.model,
            messages=self.conversation.as_sent(),
            response_schema=self.step.output_schema or (planning.ANSWER if self.step.emits else None),
            tools=tool_rounds.specs(self.tools()),
            may_call=self.rounds < agent.max_tool_rounds,
            max_output_tokens=self.rule.most_tokens(agent.max_output_tokens),
            temperature=agent.temperature,
            timeouts=Timeouts(
                total=seconds_left,
                first_token=seconds(first) if first else None,
                stall=seconds(stall) if stall else None,
            ),
            stream=agent.stream,
            call_key=f"{self.request.collaboration}/{self.request.path}/{self.request.iteration}",
            tenant=self.request.tenant,
            providers=self.catalogue.providers,
        )

    def decides(self, to: Destination, verify: list[Json] | None) -> dict[str, Json]:
        """Return everything that decides the output, as the cache hashes it.

        `verify` names verifier, threshold and strong model if the answer is judged.
        """
        asked = self.build(0.0)
        facts: dict[str, Json] = {
            "kind": "agent",
            "model": asked.model,
            # An answer that was made up by the simulator is never taken for a provider's, nor the reverse.
            "answers": [to.provider, to.model, to.simulated],
            "messages": [[message.role, message.content] for message in asked.messages],
            "tools": [tool.name for tool in asked.tools],
            "temperature": asked.temperature,
            # No answer counts that the router's own limit cut.
            "max_output_tokens": self.conversation.agent.max_output_tokens,
            "output_schema": self.step.output_schema,
            "emits": self.step.emits,
            "expect": [one.that for one in answers.rules_of(self.step).expect],
        }
        return facts if verify is None else facts | {"verify": verify}


def max_tokens(gateway: Gateway, asked: ModelRequest, to: Destination) -> int:
    """Return the most that the call can take of the account's token limit; 0 without one."""
    if to.tokens_per_minute is None:
        return 0
    most = asked.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS
    return gateway.worst_case(replace(asked, max_output_tokens=most)).tokens
