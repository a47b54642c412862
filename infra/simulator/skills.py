"""The hidden skill table: what each model is good at and how fast it speaks. For the simulator only."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

Domain = Literal["enterprise", "algorithms", "backend", "general"]

# The order decides: the first domain whose words occur wins.
DOMAIN_WORDS: Final[tuple[tuple[Domain, re.Pattern[str]], ...]] = (
    ("enterprise", re.compile(r"\b(enterprise|invoice|payroll|compliance|customer|contract|crm|erp)", re.I)),
    (
        "algorithms",
        re.compile(r"\b(algorithm|complexity|sort|graph|search|shortest|dynamic program|hash)", re.I),
    ),
    ("backend", re.compile(r"\b(api|endpoint|rest|http|server|database|queue|auth|cache|rate limit)", re.I)),
)


@dataclass(frozen=True, slots=True)
class Traits:
    """How one model behaves."""

    first_token_ms: int
    tokens_per_second: int
    verbosity: float
    """1.0 is the usual length of an answer."""
    skill: dict[Domain, float]
    """The chance that a piece of work in this domain comes out without the fault it could have had."""


def _skill(enterprise: float, algorithms: float, backend: float, general: float) -> dict[Domain, float]:
    return {"enterprise": enterprise, "algorithms": algorithms, "backend": backend, "general": general}


# Invented numbers with a lesson in them: no model is best everywhere, the dearest is not always the best,
# and the cheap ones are good enough for some domains. Speeds are livelier than real, for demos and tests.
SKILL_TABLE: Final[dict[str, Traits]] = {
    "openai/gpt-4": Traits(400, 150, 1.1, _skill(0.92, 0.74, 0.84, 0.90)),
    "openai/gpt-4o": Traits(260, 220, 1.0, _skill(0.86, 0.80, 0.84, 0.87)),
    "openai/gpt-4o-mini": Traits(180, 260, 0.8, _skill(0.62, 0.58, 0.66, 0.74)),
    "deepseek/deepseek-chat": Traits(320, 190, 1.0, _skill(0.66, 0.82, 0.86, 0.76)),
    "anthropic/claude-3.5-sonnet": Traits(300, 200, 1.05, _skill(0.88, 0.84, 0.91, 0.89)),
    "qwen/qwen-2.5-coder": Traits(220, 240, 0.9, _skill(0.52, 0.90, 0.78, 0.60)),
    "ollama/llama3.2": Traits(140, 170, 0.8, _skill(0.44, 0.42, 0.48, 0.58)),
}


def traits_of(model: str) -> Traits:
    """The row of a model; one that the table does not know gets middling traits drawn from its name."""
    known = SKILL_TABLE.get(model)
    if known is not None:
        return known
    draw = hashlib.sha256(model.encode()).digest()
    skill = [0.50 + byte / 255 * 0.30 for byte in draw[:4]]
    return Traits(200 + draw[4], 140 + draw[5] // 3, 1.0, _skill(*skill))


def domain_of(text: str) -> Domain:
    """The domain that a task's words point to."""
    for domain, words in DOMAIN_WORDS:
        if words.search(text):
            return domain
    return "general"
