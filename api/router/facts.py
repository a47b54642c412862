"""Facts about the router, from its rows and from this process."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from api.router.models import CheckpointFact, ModelInfo, QuarantineFact, RouterStatus, TrainingFact
from api.state import ApiState
from db.router import checkpoints, quarantines, trainings

RULES: Final = "rules-v1"
_TRAININGS: Final = 5


async def status(connection: AsyncConnection, tenant: str, *, simulated: bool) -> RouterStatus:
    serving, challenger = await _present(connection, tenant, simulated)
    fresh = (datetime.now(UTC) - serving.trained_until).total_seconds() if serving else None
    last = await trainings.page(connection, tenant, limit=_TRAININGS, simulated=simulated)
    resting = await quarantines.active(connection, tenant, simulated=simulated)
    return RouterStatus(
        simulated=simulated,
        by="checkpoint" if serving else "rules",
        policy=_policy(serving),
        serving=serving,
        challenger=challenger,
        fresh_seconds=fresh,
        coverage=await _coverage(connection, tenant, simulated),
        quarantines=[QuarantineFact(**asdict(one)) for one in resting],
        trainings=[training(one).model_copy(update={"curve": []}) for one in last],
    )


async def model_info(state: ApiState, tenant: str, *, simulated: bool) -> ModelInfo:
    async with state.transaction() as connection:
        serving, challenger = await _present(connection, tenant, simulated)
        known = await checkpoints.serving(connection, tenant, simulated=simulated)
        ids = {one.number: one.id for one in known}
    held = state.predicting.held(ids[serving.number] if serving else None)
    return ModelInfo(
        simulated=simulated,
        by="checkpoint" if serving else "rules",
        policy=_policy(serving),
        checkpoint=serving,
        challenger=challenger,
        **held,
    )


def checkpoint(found: checkpoints.CheckpointSummary) -> CheckpointFact:
    assert found.number is not None and found.state is not None, "a production checkpoint"
    return CheckpointFact(
        number=found.number,
        state=found.state,
        state_reason=found.state_reason,
        state_since=found.state_since,
        outcomes=found.outcomes,
        training=str(found.training),
        created_at=found.created_at,
        trained_until=found.trained_until,
        sha256=found.sha256,
        bytes=found.bytes,
        manifest=found.manifest,
        simulated=found.simulated,
    )


def training(found: trainings.Training) -> TrainingFact:
    known = {key: value for key, value in vars(found).items() if key in TrainingFact.model_fields}
    return TrainingFact(**known | {"id": str(found.id)})


async def _present(
    connection: AsyncConnection, tenant: str, simulated: bool
) -> tuple[CheckpointFact | None, CheckpointFact | None]:
    """(who serves, who is on its way there)"""
    found: dict[bool, CheckpointFact] = {}
    for one in await checkpoints.serving(connection, tenant, simulated=simulated):
        found[one.state == "all"] = checkpoint(await checkpoints.find(connection, tenant, one.number))
    return found.get(True), found.get(False)


async def _coverage(connection: AsyncConnection, tenant: str, simulated: bool) -> dict[str, float]:
    """Return the interval coverage of the serving checkpoint; empty before its first outcome."""
    for one in await checkpoints.serving(connection, tenant, simulated=simulated):
        if one.state == "all":
            held = (await checkpoints.followed(connection, one.id)).get("held", {})
            return {name: sum(last) / len(last) for name, last in held.items() if last}
    return {}


def _policy(serving: CheckpointFact | None) -> str:
    return f"checkpoint-{serving.number}" if serving else RULES
