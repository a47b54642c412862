"""The API's way to the router: loaded when it is first asked, and kept."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.router.models import Candidate, Prediction, PredictRequest, Span90
from db.engine import transaction
from db.router.decisions import RoutingDecision
from router.data.encoder import ENCODER
from schema.language.catalogue import ROUTABLE_MODELS

# numpy and what stands on it take a third of a second to import, which the API's start does not wait for.
if TYPE_CHECKING:
    from activities.routing.facts import Chooser, RoutingContext, RoutingRequest

_log = logging.getLogger("facilitair.api")


class PredictionService:
    """Predictions in one process. They decide as steps do, and record nothing."""

    def __init__(self) -> None:
        self._chooser: Chooser | None = None
        self._making = asyncio.Lock()

    async def chooser(self, engine: AsyncEngine) -> "Chooser":
        if self._chooser is None:
            async with self._making:
                if self._chooser is None:
                    await asyncio.to_thread(_import)
                    from activities.routing.facts import Chooser

                    self._chooser = Chooser(engine)
        return self._chooser

    async def ready(
        self, engine: AsyncEngine, tenant: str, *, simulated: bool
    ) -> "tuple[Chooser, RoutingContext]":
        """With the checkpoints at hand, or known to be broken."""
        chooser = await self.chooser(engine)
        from activities.routing.facts import known, watching

        async with transaction(engine) as connection:
            found = watching(await known(connection, tenant, simulated=simulated))
        await chooser.settled(found)
        return chooser, found

    def held(self, id: UUID | None) -> dict[str, Any]:
        """Return what this process holds of a checkpoint; loads nothing."""
        servant = self._chooser.servant if self._chooser else None
        model = servant.model(id) if servant and id else None
        return {
            "models": list(model.models) if model else [],
            "categories": list(model.success.categories) if model else [],
            "incumbent": model.models[model.economy.incumbent] if model else None,
            "margin": model.economy.margin if model else None,
            "cost_weight": model.economy.cost_weight if model else None,
            "encoder": ENCODER,
            "loaded": model is not None,
            "loaded_at": servant.loaded_at.get(id) if servant and id else None,
            "loads": servant.loads if servant else 0,
            "cached_texts": len(servant.rows) if servant else 0,
            "cache_hits": servant.rows.hits if servant else 0,
            "cache_misses": servant.rows.misses if servant else 0,
            "broken": servant.why_broken(id) if servant and id else None,
        }

    async def predict(
        self, engine: AsyncEngine, tenant: str, wanted: Sequence[PredictRequest], *, simulated: bool
    ) -> list[Prediction]:
        chooser, known = await self.ready(engine, tenant, simulated=simulated)
        asked = [_asked(one) for one in wanted]
        decisions = await chooser.choose(known, asked, _log.exception)
        return [
            _prediction(one.question.category, decision, known)
            for one, decision in zip(asked, decisions, strict=True)
        ]


def _import() -> None:
    import activities.routing.facts  # noqa: F401


def _asked(wanted: PredictRequest) -> "RoutingRequest":
    from activities.routing.facts import RoutingRequest
    from router.data import question as data_question
    from router.serve.predictions import RoutingQuestion

    question = RoutingQuestion(
        data_question.text(wanted.task, wanted.prompt),
        data_question.category(wanted.role, wanted.agent, wanted.task),
        tuple(dict.fromkeys(wanted.candidates)) or ROUTABLE_MODELS,
    )
    return RoutingRequest(wanted.task, wanted.role, question, "predict")


def _prediction(category: str, decision: RoutingDecision, known: "RoutingContext") -> Prediction:
    from router.serve.decisions import budget, confidence

    told = decision.features
    predicted: Mapping[str, Mapping[str, Any]] = told.get("predicted") or {}
    ordered = sorted(decision.candidates, key=lambda name: -decision.candidates[name])
    serves = told["checkpoint"] is not None
    # A step may draw another by chance; a caller wants to know the likeliest.
    about = predicted[ordered[0]] if serves else None
    return Prediction(
        simulated=known.simulated,
        model=ordered[0],
        by="checkpoint" if serves else "rules",
        policy=decision.policy,
        checkpoint=told["checkpoint"],
        fallback=decision.fallback,
        confidence=confidence(about["ok"], about["doubt"]) if about else None,
        novelty=told.get("novelty"),
        budget_tokens=budget(about["ok"], about["tokens"]) if about else None,
        category=category,
        candidates=[
            _candidate(name, decision.candidates[name], predicted.get(name) or {}, name in known.quarantined)
            for name in ordered
        ],
        votes=told["votes"],
        notes=_notes(told, serves=serves, predicted=bool(predicted)),
    )


def _candidate(name: str, chance: float, of: Mapping[str, Any], quarantined: bool) -> Candidate:
    return Candidate(
        model=name,
        chance=chance,
        success=of.get("ok"),
        doubt=of.get("doubt"),
        seconds=_span(of.get("seconds")),
        output_tokens=_span(of.get("tokens")),
        usd=_span(of.get("usd")),
        quarantined=quarantined,
    )


def _span(ends: Sequence[float] | None) -> Span90 | None:
    return None if ends is None else Span90(low=ends[0], expected=ends[1], high=ends[2])


def _notes(told: Mapping[str, Any], *, serves: bool, predicted: bool) -> list[str]:
    notes = []
    if broken := told.get("broken"):
        notes.append(f"broken: {broken}")
    if told.get("novel"):
        notes.append("unlike everything that was learned from: the best single model is preferred")
    if cost := told.get("cost"):
        notes.append(f"cost: {cost}")
    if unpriced := told.get("unpriced"):
        names = ", ".join(unpriced)
        notes.append(f"no price is known of {names}; `facilitair prices set` tells it")
    if not serves:
        expects = (
            f"; what is expected is by checkpoint {', '.join(told['shadow'])}" if "shadow" in told else ""
        )
        notes.append(f"rules decide: no checkpoint serves{expects}")
    return notes
