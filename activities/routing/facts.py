"""Facts behind a choice of models: candidates, prices and quarantines."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.routing import prices
from db.definitions import catalogue
from db.engine import transaction
from db.router import checkpoints, quarantines
from db.router.decisions import RoutingDecision
from router.serve import rules
from router.serve.checkpoint_server import CheckpointServer, ServedCheckpoint
from router.serve.decisions import quarantined_of
from router.serve.predictions import RoutingQuestion
from router.serve.rules import Roles
from router.statistics.choose import PricePair
from router.statistics.model import IntervalShifts
from schema.language.catalogue import Catalogue

Warn = Callable[[str], None]


@dataclass(frozen=True)
class RoutingContext:
    """Routing's knowledge of a tenant at this moment."""

    tenant: str
    simulated: bool
    """Whether the simulator answers. Only simulated runs teach simulated choices, and only real ones real
    choices."""
    wanted: tuple[ServedCheckpoint, ...]
    """Checkpoints, the one that serves before its challenger."""
    own_prices: dict[str, PricePair]
    quarantined: frozenset[str]
    catalogue: Catalogue


async def known(connection: AsyncConnection, tenant: str, *, simulated: bool) -> RoutingContext:
    wanted = tuple(
        ServedCheckpoint(
            one.id,
            one.number,
            one.state,
            one.sha256,
            IntervalShifts(one.followed_until, one.moved) if one.moved else None,
        )
        for one in await checkpoints.serving(connection, tenant, simulated=simulated)
    )
    return RoutingContext(
        tenant,
        simulated,
        wanted,
        # Only what a checkpoint expects is weighed by its price.
        await prices.own(connection, tenant) if wanted else {},
        frozenset(await quarantines.of_tenant(connection, tenant, simulated=simulated)),
        await catalogue.of_tenant(connection, tenant),
    )


def watching(known: RoutingContext) -> RoutingContext:
    """For who only wants to know: what a challenger would choose is told, and is not taken by chance."""
    wanted = tuple(one if one.state == "all" else replace(one, state="shadow") for one in known.wanted)
    return replace(known, wanted=wanted)


@dataclass(frozen=True)
class RoutingRequest:
    """A step that wants a model, as rules and as checkpoints are asked."""

    task: str
    role: str | None
    question: RoutingQuestion
    key: str
    """Seed of the draw: the same key, the same choice."""


class Chooser:
    """The one way to a decision, for steps and for who only wants to know."""

    def __init__(self, engine: AsyncEngine, servant: CheckpointServer | None = None) -> None:
        self._engine = engine
        self.servant = servant or CheckpointServer()

    async def choose(
        self, known: RoutingContext, asked: Sequence[RoutingRequest], warn: Warn
    ) -> list[RoutingDecision]:
        """Never fails for what a checkpoint or a policy does wrong: a run must go on (S2-45)."""
        staff = self.servant.staff(known.tenant, known.wanted, self._content)
        roles, resting = known.catalogue.roles, known.quarantined
        found: dict[int, RoutingDecision] = {}
        together: dict[tuple[str, ...], list[int]] = {}
        for at, one in enumerate(asked):
            together.setdefault(one.question.candidates, []).append(at)
        for candidates, places in together.items():
            some = [asked[at] for at in places]
            chosen = [by_rules(one.task, one.role, candidates, one.key, roles, resting, warn) for one in some]
            priced: dict[str, PricePair] = {}
            if known.wanted:
                others = (name for name in candidates if name not in known.own_prices)
                priced = known.own_prices | await prices.general(others)
            decisions = await self.servant.decide_all(
                staff, [one.question for one in some], chosen, resting, priced, [one.key for one in some]
            )
            found |= zip(places, decisions, strict=True)
        return [found[at] for at in range(len(asked))]

    async def settled(self, known: RoutingContext) -> None:
        """Wait until the checkpoints are loaded, or have proved broken."""
        self.servant.staff(known.tenant, known.wanted, self._content)
        await self.servant.settled(known.wanted)

    async def _content(self, id: UUID) -> bytes:
        async with transaction(self._engine) as connection:
            return await checkpoints.content(connection, id)


def by_rules(
    task: str,
    role: str | None,
    candidates: Sequence[str],
    key: str,
    roles: Roles,
    quarantined: Collection[str],
    warn: Warn,
) -> RoutingDecision:
    """The rules' choice among who need not rest; the plain default when they fail."""
    out = quarantined_of(candidates, quarantined)
    healthy = [name for name in candidates if name not in out]
    try:
        return rules.choose(task, role, healthy, key, roles)
    except Exception:
        warn("the routing policy failed; the role's default is used")
        return rules.fallback_choice(role, healthy, key, roles)
