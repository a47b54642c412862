"""Label a run in Temporal's lists, if their search attributes are registered."""

from typing import Final

from temporalio import workflow
from temporalio.common import SearchAttributeKey

with workflow.unsafe.imports_passed_through():
    from schema.temporal import search_attributes
    from schema.temporal.runs import PinnedRun

_TENANT: Final = SearchAttributeKey.for_keyword(search_attributes.TENANT)
_VERSION: Final = SearchAttributeKey.for_keyword(search_attributes.VERSION)
_STATUS: Final = SearchAttributeKey.for_keyword(search_attributes.STATUS)
_COST_USD: Final = SearchAttributeKey.for_float(search_attributes.COST_USD)


def begin(pinned: PinnedRun, status: str = "running") -> None:
    """Label a run with what stays true to its end, and how it stands."""
    name = workflow.info().workflow_type.partition("@")[0]
    if pinned.searchable:
        version = f"{name}@{pinned.version_number}"
        workflow.upsert_search_attributes(
            [_TENANT.value_set(pinned.tenant), _VERSION.value_set(version), _STATUS.value_set(status)]
        )


def end(status: str, cost_usd: float | None) -> None:
    """Label a run with how it ended; `cost_usd` is None where another worker had closed it."""
    cost = [] if cost_usd is None else [_COST_USD.value_set(cost_usd)]
    workflow.upsert_search_attributes([_STATUS.value_set(status), *cost])
