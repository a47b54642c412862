"""Tell whether the simulator answers an agent. Real and simulated outcomes never teach each other."""

from collections.abc import Sequence

from gateway.destinations import Destinations
from schema.language.catalogue import ROUTABLE_MODELS, Catalogue
from schema.language.steps import Agent, Route


def candidates(
    to: Destinations, models: Sequence[str], catalogue: Catalogue, tenant: str
) -> tuple[tuple[str, ...], bool]:
    """Return who can be chosen, and whether the simulator answers for them: those that providers answer for
    stand alone, and the simulator's are left where there are no others."""
    real = tuple(model for model in models if not to.simulates(model, catalogue.providers, tenant))
    return real or tuple(models), not real


def is_simulated(to: Destinations, agent: Agent, catalogue: Catalogue, tenant: str) -> bool:
    """Return whether the simulator would answer an agent. Raises StepError("role_unknown")."""
    if isinstance(agent.model, Route):
        return candidates(to, agent.model.among or ROUTABLE_MODELS, catalogue, tenant)[1]
    return to.simulates(catalogue.model_of(agent), catalogue.providers, tenant)
