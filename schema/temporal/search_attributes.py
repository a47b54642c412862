"""The search attributes by which Temporal's lists find runs: `temporal workflow list --query "…"`."""

from typing import Final

TENANT: Final = "FacilitairTenant"
VERSION: Final = "FacilitairVersion"
"""`name@3`, also where the workflow type is the bare name or has an alias."""
STATUS: Final = "FacilitairStatus"
"""running, completed, failed or cancelled, as the run itself says: one that Temporal ends stays `running`."""
COST_USD: Final = "FacilitairCostUsd"
"""Cost of a run that has ended, its sub-collaborations included."""

KINDS: Final = {TENANT: "Keyword", VERSION: "Keyword", STATUS: "Keyword", COST_USD: "Double"}
"""name → type, as `temporal operator search-attribute create` spells it."""
