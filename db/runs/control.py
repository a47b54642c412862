"""Steering of running collaborations: pauses, changes to agents, and people's notes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from db import audit, outbox
from db.runs.collaborations import Run
from schema.events import RunSteered
from schema.tables.runs import collaborations, feedback, run_controls

PAUSED: Final = "paused"
"""`collaborations.sub_state` of a run that is still running."""
_SHOWN_CHARS: Final = 2_000


@dataclass(frozen=True)
class FeedbackNote:
    """A note from a person to a run."""

    text: str
    step: str | None
    """Only its prompts hold it; None: of any step."""
    agent: str | None
    actor: str

    def concerns(self, step: str, agent: str) -> bool:
        return self.step in (None, step) and self.agent in (None, agent)


@dataclass(frozen=True)
class Control:
    """People's steering of a run so far."""

    own: bool = False
    """Whether somebody paused this run itself."""
    above: bool = False
    """Whether somebody paused a run that this one is a step of."""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Agent, or "" for every agent → how it is asked instead."""
    feedback: list[FeedbackNote] = field(default_factory=list)
    """In the order in which it was given."""

    @property
    def paused(self) -> bool:
        return self.own or self.above

    def changes_of(self, agent: str) -> dict[str, Any]:
        """Return the changes that apply to an agent; its own override those for all agents."""
        return {**self.changes.get("", {}), **self.changes.get(agent, {})}


# Every agent step begins with this: one round trip, and nothing but three primary keys where nobody steers.
_STATE: Final = text("""
    WITH RECURSIVE lineage AS (
        SELECT id, parent_id, false AS above FROM collaborations WHERE id = :run
        UNION ALL
        SELECT run.id, run.parent_id, true FROM collaborations run JOIN lineage ON run.id = lineage.parent_id
    )
    SELECT
        coalesce(bool_or(control.paused) FILTER (WHERE NOT lineage.above), false) AS own,
        coalesce(bool_or(control.paused) FILTER (WHERE lineage.above), false) AS above,
        (SELECT changes FROM run_controls WHERE collaboration_id = :run) AS changes,
        (
            SELECT jsonb_agg(jsonb_build_array(text, step, agent, actor) ORDER BY at, id)
            FROM feedback WHERE collaboration_id = :run
        ) AS feedback
    FROM lineage JOIN run_controls control ON control.collaboration_id = lineage.id
""")


async def state(connection: AsyncConnection, run: UUID) -> Control:
    row = (await connection.execute(_STATE, {"run": run})).one()
    return Control(row.own, row.above, row.changes or {}, [FeedbackNote(*one) for one in row.feedback or ()])


async def hold(connection: AsyncConnection, run: UUID) -> str:
    """The status of a run, which neither ends nor is steered by others before this transaction does."""
    query = select(collaborations.c.status).where(collaborations.c.id == run)
    # Not FOR UPDATE: that would also make its steps wait, whose rows refer to it.
    return str((await connection.execute(query.with_for_update(key_share=True))).scalar_one())


async def pause(connection: AsyncConnection, run: Run, actor: str) -> None:
    """Let nothing new begin. Nothing changes where it is paused already."""
    if await _set_paused(connection, run, paused=True):
        await _set_sub_state(connection, run, "", PAUSED)
        await _tell(connection, run, actor, "pause")


async def resume(connection: AsyncConnection, run: Run, actor: str) -> None:
    """Let it go on. Nothing changes where it is not paused."""
    if await _set_paused(connection, run, paused=False):
        await _set_sub_state(connection, run, PAUSED, "")
        await _tell(connection, run, actor, "resume")


async def feedbacks(connection: AsyncConnection, run: UUID, besides: UUID) -> int:
    """Count the notes of a run, except `besides`."""
    of_run = (feedback.c.collaboration_id == run, feedback.c.id != besides)
    return int((await connection.execute(select(func.count()).where(*of_run))).scalar_one())


async def tell(connection: AsyncConnection, run: Run, id: UUID, said: FeedbackNote) -> None:
    """Keep what somebody told a run. The same id once more changes nothing."""
    added = await connection.execute(
        upsert(feedback)
        .values(
            id=id,
            tenant_id=run.tenant,
            collaboration_id=run.id,
            text=said.text,
            step=said.step,
            agent=said.agent,
            actor=said.actor,
        )
        .on_conflict_do_nothing()
        .returning(feedback.c.id)
    )
    if added.first():
        facts = {"step": said.step, "agent": said.agent}
        shown = {"text": said.text[:_SHOWN_CHARS], **facts}
        await _tell(connection, run, said.actor, "inject_feedback", shown, {"feedback": str(id), **facts})


async def adjust(
    connection: AsyncConnection, run: Run, actor: str, agent: str, changes: Mapping[str, Any]
) -> None:
    """Ask an agent otherwise from now on, or every agent where `agent` is empty. Null takes a change back."""
    query = select(run_controls.c.changes).where(run_controls.c.collaboration_id == run.id)
    before: dict[str, dict[str, Any]] = (await connection.execute(query)).scalar() or {}
    merged = {**before.get(agent, {}), **changes}
    kept = {key: value for key, value in merged.items() if value is not None}
    after = {name: values for name, values in (before | {agent: kept}).items() if values}
    if after == before:
        return
    row = upsert(run_controls).values(collaboration_id=run.id, tenant_id=run.tenant, changes=after)
    await connection.execute(
        row.on_conflict_do_update(index_elements=["collaboration_id"], set_={"changes": after})
    )
    shown = {key: one[:_SHOWN_CHARS] if isinstance(one, str) else one for key, one in changes.items()}
    await _tell(connection, run, actor, "adjust", {"agent": agent, "changes": shown})


async def _set_paused(connection: AsyncConnection, run: Run, *, paused: bool) -> bool:
    """Set or clear the pause; return False if that changed nothing."""
    if not paused:
        query = update(run_controls).where(run_controls.c.collaboration_id == run.id, run_controls.c.paused)
        return bool((await connection.execute(query.values(paused=False))).rowcount)
    row = upsert(run_controls).values(collaboration_id=run.id, tenant_id=run.tenant, paused=True)
    changed = await connection.execute(
        row.on_conflict_do_update(
            index_elements=["collaboration_id"], set_={"paused": True}, where=~run_controls.c.paused
        ).returning(run_controls.c.paused)
    )
    return changed.first() is not None


async def _set_sub_state(connection: AsyncConnection, run: Run, before: str, after: str) -> None:
    c = collaborations.c
    await connection.execute(
        update(collaborations)
        .where(c.id == run.id, c.status == "running", c.sub_state == before)
        .values(sub_state=after)
    )


async def _tell(
    connection: AsyncConnection,
    run: Run,
    actor: str,
    action: str,
    detail: dict[str, Any] | None = None,
    noted: dict[str, Any] | None = None,
) -> None:
    """Record a steering action in the event log, and in the audit log as `noted` if that differs."""
    event = RunSteered(str(run.id), action, actor, detail or {})
    await outbox.append(connection, run.tenant, str(run.id), event, run.traceparent)
    kept = noted if noted is not None else detail or {}
    await audit.append(connection, run.tenant, actor, f"run.{action}", run.temporal_workflow_id, **kept)
