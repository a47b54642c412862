"""Judge answers with a model, and split them into training and held-out examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Final

from gateway.request import Message
from schema.cel.expressions import Json
from schema.chance import point
from schema.errors import Refused
from schema.language.model_json import read_model_json
from schema.values.foreign_json import NotJson

HELD_OUT_SHARE: Final = 0.2
MAX_TRAINING_EXAMPLES: Final = 64
MAX_HELD_OUT: Final = 30
MIN_HELD_OUT: Final = 10

VERDICT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["quality"],
    "properties": {"quality": {"type": "number", "minimum": 0, "maximum": 1}},
}


@dataclass(frozen=True)
class ScoredAnswer:
    """One step's task and answer, with the quality that its collaboration was judged at."""

    task: str
    answer: str
    quality: float
    schema: str = ""
    """JSON Schema of the answer, as JSON."""


def split(scored: Sequence[ScoredAnswer]) -> tuple[list[ScoredAnswer], list[ScoredAnswer]]:
    """(to learn from, held out), by the hash of the task: equal tasks stand on one side, always the same."""
    train: list[ScoredAnswer] = []
    held_out: list[ScoredAnswer] = []
    for one in scored:
        (held_out if _mark(one.task) < HELD_OUT_SHARE else train).append(one)
    return train, held_out


def _mark(task: str) -> float:
    return point(" ".join(task.split()).casefold())


def to_learn_from(train: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """The best known answers, one per task: examples of what was judged well."""
    best: dict[float, ScoredAnswer] = {}
    for one in train:
        known = best.get(mark := _mark(one.task))
        if known is None or one.quality > known.quality:
            best[mark] = one
    return sorted(best.values(), key=lambda one: (-one.quality, _mark(one.task)))[:MAX_TRAINING_EXAMPLES]


def to_hold_out(held_out: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """Different tasks, chosen by their hash and not by how they went."""
    return [one for _, one in sorted({_mark(one.task): one for one in held_out}.items())][:MAX_HELD_OUT]


def wanted_quality(train: Sequence[ScoredAnswer]) -> float:
    """Return the quality from which an answer becomes an example: the average of the training set."""
    return mean(one.quality for one in train)


def question(system: str, task: str, answer: str) -> list[Message]:
    """Render the question to the judge."""
    text = (
        "Judge how well the answer does what the task asks. Be strict: 1 is faultless, 0 is useless.\n\n"
        f"## Task\n{task}\n\n## Answer\n{answer}\n\n"
        'Answer with JSON only: {"quality": a number from 0 to 1}'
    )
    return [*([Message("system", system)] if system else []), Message("user", text)]


def verdict(text: str) -> float | None:
    """The quality that the judge gave; None where it gave none."""
    try:
        said = read_model_json(text, _is_verdict)
    except NotJson:
        return None
    return float(said["quality"]) if _is_verdict(said) else None


def _is_verdict(value: Json) -> bool:
    quality = value.get("quality") if isinstance(value, dict) else None
    return isinstance(quality, int | float) and not isinstance(quality, bool) and 0 <= quality <= 1


@dataclass(frozen=True)
class Comparison:
    """Held-out tasks answered with the present version and with the candidate, and judged alike."""

    tasks: int
    present: float
    candidate: float


def compare(pairs: Sequence[tuple[float | None, float | None]]) -> Comparison:
    """Compare two prompts on the tasks that both were judged at. Raises Refused if the candidate is worse or
    unproven."""
    judged = [(one, other) for one, other in pairs if one is not None and other is not None]
    if len(judged) < MIN_HELD_OUT:
        raise Refused(
            "not_better",
            f"found {len(judged)} held-out tasks that both versions answered and the judge scored; expected "
            f"at least {MIN_HELD_OUT}. Name another --judge, or let the prompt see more different tasks.",
        )
    found = Comparison(len(judged), mean(one for one, _ in judged), mean(other for _, other in judged))
    if found.candidate < found.present:
        raise Refused(
            "not_better",
            f"found a held-out quality of {found.candidate:.3f} with the examples, over {found.tasks} tasks; "
            f"expected no less than the present version's {found.present:.3f}. Nothing was stored.",
        )
    return found
