"""Routing by rules: what a task is about, and the model for it. No torch, and it always works (S2-45)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from db.router.decisions import RoutingDecision
from router.data.exploration import FLOOR
from router.data.task import TaskMetadata, analyze_task
from schema.chance import draw
from schema.language.catalogue import ROLE_DEFAULTS, RoleDefault

POLICY: Final = "rules-v1"
FALLBACK_POLICY: Final = "rules-v1-fallback"


Roles = Mapping[str, RoleDefault]


def choose(
    task: str, role: str | None, candidates: Sequence[str], key: str, roles: Roles = ROLE_DEFAULTS
) -> RoutingDecision:
    """One of `candidates`, mostly the one that the rules prefer; the same for the same `key`, always."""
    about = analyze_task(task)
    return _decide(
        _preferred(about, role, candidates, roles), candidates, key, POLICY, asdict(about), fallback=False
    )


def fallback_choice(
    role: str | None, candidates: Sequence[str], key: str, roles: Roles = ROLE_DEFAULTS
) -> RoutingDecision:
    """The choice when a policy failed: looks at nothing that could have made it fail."""
    return _decide(_default(role, candidates, roles), candidates, key, FALLBACK_POLICY, {}, fallback=True)


def _preferred(about: TaskMetadata, role: str | None, candidates: Sequence[str], roles: Roles) -> str:
    """S3-39: Python to DeepSeek, TypeScript to Claude; else what the role uses."""
    family = {"python": "deepseek", "typescript": "claude"}.get(about.language)
    if family:
        for candidate in candidates:
            if family in candidate.lower():
                return candidate
    return _default(role, candidates, roles)


def _default(role: str | None, candidates: Sequence[str], roles: Roles) -> str:
    usual = roles.get(role) if role else None
    return usual.model if usual and usual.model in candidates else candidates[0]


def _decide(
    preferred: str,
    candidates: Sequence[str],
    key: str,
    policy: str,
    features: dict[str, Any],
    *,
    fallback: bool,
) -> RoutingDecision:
    names = list(dict.fromkeys(candidates))
    # With very many candidates the floors alone would add up to more than one.
    floor = min(FLOOR, 1 / len(names))
    chances = dict.fromkeys(names, floor)
    chances[preferred] = 1 - floor * (len(names) - 1)
    model = draw(chances, key)
    return RoutingDecision(model, chances[model], policy, features, chances, fallback)
