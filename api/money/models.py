"""Requests and responses about spending, limits and prices."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict

from db.money.limits import EACH, Counter, LimitScope, Period, SpendingLimit
from db.money.report import By

MODEL = r"^[^\x00-\x20/]+/[^\x00-\x20]+$"
SUBJECT = r"^[^\x00-\x1f]+$"

_NOISE: Final = 1e-15
_NOISY_FROM: Final = 1e6
"""Dollars; of more, a float's noise is as large as what must be refused."""
_MAX_USD: Final = 1_000_000_000
_USD_TEXT: Final = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"


def _micro_dollars(given: Any) -> Any:
    """Return a number or its text as exact dollars; a float by its nearest micro-dollar, where it differs by
    its own noise alone, as 0.1 + 0.2 does from 0.3. Raise ValueError for a text that is no plain number."""
    if isinstance(given, str) and not re.fullmatch(_USD_TEXT, given):
        raise ValueError("expected a number such as 0.25")
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        return given
    nearest = round(float(given), 6)
    if isinstance(given, float) and math.isclose(nearest, given, rel_tol=_NOISE) and given < _NOISY_FROM:
        return Decimal(repr(nearest))
    return Decimal(str(given))


# What is finer than a micro-dollar is refused, not rounded. Text is taken too: it has no noise.
Usd = Annotated[
    Decimal,
    Field(ge=0, lt=_MAX_USD, decimal_places=6),
    BeforeValidator(_micro_dollars),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": _MAX_USD, "multipleOf": 1e-6},
                {"type": "string", "pattern": _USD_TEXT},
            ],
            "examples": [25],
        }
    ),
]


class SumFact(BaseModel):
    """Totals of a group of calls."""

    calls: int
    open_calls: int = Field(description="Under way, or cut off and not known yet: what they cost is not in.")
    input_tokens: int
    cached_input_tokens: int = Field(description="Part of input_tokens.")
    output_tokens: int
    usd: float = Field(description="All together: billed_usd and simulated_usd.")
    billed_usd: float = Field(description="What providers are paid.")
    simulated_usd: float = Field(description="What calls of the simulator would have cost: nobody is billed.")
    assumed_usd: float = Field(description="Part of usd: the most that lost calls can have cost.")
    open_usd: float = Field(description="Reserved for open calls as far as limits hold for them; not in usd.")
    simulated: bool = Field(description="Whether any call was simulated.")


class NamedSum(SumFact):
    name: str = Field(description="Empty: of none, such as calls that no user asked for.")


class SpendingReport(BaseModel):
    since: datetime
    until: datetime
    by: By
    total: SumFact
    items: list[NamedSum] = Field(description="The dearest first; of days the latest.")
    next: str | None = Field(description="Pass it as `after`, with this `until`, for the next page.")


class LimitKey(BaseModel):
    scope: LimitScope
    subject: str = Field(
        default="",
        max_length=200,
        pattern=f"{SUBJECT}|^$",
        description="The user or the definition; `*` is each that has no limit of its own. Of a tenant none.",
    )
    period: Period = Field(description="A day or month of UTC, or `total`: for ever.")


_NO_SUBJECT: Final[JsonDict] = {"properties": {"scope": {"const": "tenant"}, "subject": {"const": ""}}}
_SUBJECT: Final[JsonDict] = {
    "required": ["subject"],
    "properties": {"scope": {"enum": ["user", "definition"]}, "subject": {"minLength": 1}},
}
_GIVEN: Final[JsonDict] = {"not": {"type": "null"}}


class LimitRequest(LimitKey):
    """Dollars, tokens (input and output together), or both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [_NO_SUBJECT, _SUBJECT],
            "anyOf": [{"required": [one], "properties": {one: _GIVEN}} for one in ("usd", "tokens")],
            "examples": [{"scope": "tenant", "period": "day", "usd": 25}],
        },
    )

    usd: Usd | None = None
    tokens: int | None = Field(default=None, ge=0, le=10**15)

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if (self.scope == "tenant") != (self.subject == ""):
            wanted = "no subject for a tenant" if self.scope == "tenant" else f"a {self.scope}, or {EACH}"
            raise ValueError(f"expected {wanted}")
        return self

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.usd is None and self.tokens is None:
            raise ValueError("expected usd, tokens or both")
        return self


class CounterFact(BaseModel):
    subject: str
    spent_usd: float
    reserved_usd: float = Field(description="The most that calls under way can still cost.")
    spent_tokens: int
    reserved_tokens: int


class LimitFact(BaseModel):
    scope: LimitScope
    subject: str
    period: Period
    usd: float | None
    tokens: int | None
    set_by: str | None = None
    set_at: datetime | None = None
    counters: list[CounterFact] = Field(
        description="In the present period. Of `*` the 20 fullest of those that it holds for."
    )


def limit_fact(limit: SpendingLimit, counters: Sequence[Counter]) -> LimitFact:
    return LimitFact(
        scope=limit.scope,
        subject=limit.subject,
        period=limit.period,
        usd=None if limit.usd is None else float(limit.usd),
        tokens=limit.tokens,
        set_by=limit.set_by,
        set_at=limit.set_at,
        counters=[
            CounterFact(
                subject=one.subject,
                spent_usd=float(one.spent.usd),
                reserved_usd=float(one.reserved.usd),
                spent_tokens=one.spent.tokens,
                reserved_tokens=one.reserved.tokens,
            )
            for one in counters
        ],
    )


class SetLimit(LimitFact):
    warnings: list[str] = Field(default_factory=list, description="What may not be meant.")


class LimitPage(BaseModel):
    items: list[LimitFact]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class PriceRequest(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"input_usd": 0.15, "output_usd": 0.6}]}
    )

    input_usd: Usd
    output_usd: Usd
    cached_input_usd: Usd | None = Field(default=None, description="Absent: as other input.")


class PriceVersion(BaseModel):
    """US dollars for a million tokens."""

    model: str
    version: int
    input_usd: float
    output_usd: float
    cached_input_usd: float | None
    set_by: str | None
    set_at: datetime


class PricePage(BaseModel):
    items: list[PriceVersion]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last one.")


class EffectivePrice(BaseModel):
    """Current price of a model, in US dollars per million tokens."""

    model: str
    answers: str = Field(
        description="The model that is paid: a withdrawn one's successor, where it is asked."
    )
    source: str | None = Field(
        default=None,
        description="`tenant:<tenant>@<version>`, `facilitair:<date>` or `litellm:<version>`; null: no price "
        "is known, and calls are refused with price_missing.",
    )
    input_usd: float | None = None
    output_usd: float | None = None
    cached_input_usd: float | None = None


class ModelPrice(EffectivePrice):
    versions: list[PriceVersion] = Field(description="The tenant's own, the newest first: at most 100.")


class TreeFact(BaseModel):
    """The most that one start can lead to, stored sub-collaborations and all within them included."""

    executions: int = Field(description="Of steps, repetitions counted.")
    children: int = Field(description="Sub-collaborations.")


class EstimateDocument(BaseModel):
    """Upper bounds of one run, retries and sub-collaborations apart."""

    name: str
    executions: int = Field(description="Of steps, repetitions counted.")
    model_calls: int
    children: int = Field(description="Sub-collaborations, whose own cost is not in.")
    tree: TreeFact
    usd: float | None = Field(
        description="A guess where prompts read what only the run will show; null where a price is missing."
    )
    prices: list[EffectivePrice] = Field(description="Of the models that may be asked.")
    limits: list[LimitFact] = Field(description="Those that would hold for the run, and their counters now.")
    warnings: list[str] = Field(description="What may stop the run for want of money.")
