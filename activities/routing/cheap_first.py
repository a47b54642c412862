"""Decide whether a cheap model answers first and a verifier judges it, by the step's routing rule."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.routing import prices
from activities.routing.facts import RoutingContext, RoutingRequest
from db.engine import transaction
from db.router import rules
from db.router.decisions import RoutingDecision
from router.serve import cheap_first
from router.serve.cheap_first import ExpectedOutcome
from router.serve.decisions import quarantined_of
from router.statistics.choose import PricePair
from schema.language.steps import Verify

_CHARS_PER_TOKEN: Final = 4
_VERDICT_TOKENS: Final = 40
_ANSWER_TOKENS: Final = 500
"""Length of an answer whose length is unknown, for comparing prices; nothing is booked by it."""


async def planned(
    engine: AsyncEngine,
    decision: RoutingDecision,
    rule: Verify | None,
    asked: RoutingRequest,
    known: RoutingContext,
) -> RoutingDecision:
    """The decision as the rule's verification changes it; as it is where one model outright is better."""
    if rule is None:
        return decision
    out = quarantined_of(asked.question.candidates, known.quarantined)
    names = [name for name in decision.candidates if name not in out]
    role = known.catalogue.roles.get(rule.by)
    judge = role.model if role else rule.by  # a role that has gone is the agent step's to complain of
    async with transaction(engine) as connection:
        priced = await prices.own(connection, known.tenant)
        said = await rules.verdicts(connection, known.tenant, judge, simulated=known.simulated)
    others = [name for name in (*names, *([rule.then] if rule.then else []), judge) if name not in priced]
    priced |= await prices.general(others)
    verifier = cheap_first.seen(said.wrong, said.wrong_rejected, said.right, said.right_rejected)
    pair = pair_of(decision, names, rule.then, len(asked.question.text), priced, judge, verifier)
    return cheap_first.cheap_first(decision, pair) if pair else decision


def pair_of(
    decision: RoutingDecision,
    names: Sequence[str],
    then: str | None,
    chars: int,
    priced: Mapping[str, PricePair],
    judge: str,
    verifier: cheap_first.Verifier,
) -> dict[str, Any] | None:
    """Choose the cheap and the strong model from the deciding checkpoint's expectations, else by price alone.

    None means one model outright. `chars` is the length of the request.
    """
    preferred = max(names, key=lambda name: decision.candidates[name])
    tokens_in = chars / _CHARS_PER_TOKEN
    predicted = decision.features.get("predicted", {})
    expected = {
        name: ExpectedOutcome(predicted[name]["ok"], predicted[name]["usd"][1])
        for name in dict.fromkeys([*names, *([then] if then else [])])
        if name in predicted and predicted[name]["usd"]
    }
    learned = decision.features.get("checkpoint") is not None
    if learned and len(expected) > 1 and judge in priced and (then is None or then in expected):
        answer = max(predicted[name]["tokens"][1] for name in expected)
        verify_usd = _usd(priced[judge], tokens_in + answer, _VERDICT_TOKENS)
        weight = decision.features.get("cost_weight", 0.0)
        found = cheap_first.plan(expected, verify_usd, cost_weight=weight, then=then, verifier=verifier)
        return found.as_json() if found else None
    usd = {name: _usd(priced[name], tokens_in, _ANSWER_TOKENS) for name in names if name in priced}
    return cheap_first.by_price(usd, preferred, then)


def _usd(price: PricePair, tokens_in: float, tokens_out: float) -> float:
    return (price[0] * tokens_in + price[1] * tokens_out) / 1e6
