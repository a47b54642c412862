from decimal import Decimal
from typing import Any

import pytest

from schema.rules.size import RunSize, TreeSize, estimate
from schema.rules.validate import validate

AGENTS = {
    "poet": {"model": "openai/gpt-4", "max_output_tokens": 100},
    "any": {"model": {"among": ["openai/gpt-4", "qwen/x"]}},
}
STEP = {"kind": "transform", "value": 1}
ASK = {"kind": "agent", "agent": "poet", "prompt": "x" * 300}
SCHEMA = {"output_schema": {"type": "object"}}


def whole(steps: dict[str, Any], **fields: Any) -> RunSize:
    return estimate(validate({"name": "x", "agents": AGENTS, "steps": steps, **fields}).definition)


def loop(times: int, **steps: Any) -> dict[str, Any]:
    return {"kind": "loop", "max_iterations": times, "body": {"steps": steps}}


@pytest.mark.parametrize(
    ("steps", "executions", "events", "model_calls", "children"),
    [
        ({"a": STEP}, 1, 1, 0, 0),
        ({"a": ASK}, 1, 6, 1, 0),
        ({"a": ASK | SCHEMA}, 1, 6, 3, 0),
        ({"a": ASK | SCHEMA | {"reflect": {"max": 0}}}, 1, 6, 1, 0),
        ({"a": {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}}, 1, 1, 0, 0),
        ({"a": {"kind": "tool", "activity": "x", "task_queue": "q"}}, 1, 6, 0, 0),
        ({"a": {"kind": "human", "title": "x"}, "w": {"kind": "wait", "for": "1s"}}, 2, 13, 0, 0),
        ({"a": {"kind": "collaboration", "ref": "x"}}, 1, 6, 0, 1),
        (
            {"m": {"kind": "map", "over": "[1]", "max_items": 10, "body": {"steps": {"a": ASK, "b": STEP}}}},
            21,
            2 + 10 * (2 + 7),
            10,
            0,
        ),
        ({"l": loop(10, a=STEP, n=loop(5, b=ASK))}, 1 + 10 * (1 + 1 + 5), 2 + 10 * (2 + 1 + 2 + 40), 50, 0),
    ],
)
def test_the_most_that_a_run_comes_to(
    steps: dict[str, Any], executions: int, events: int, model_calls: int, children: int
) -> None:
    assert whole(steps) == RunSize(
        executions, events, 0, model_calls, children, None, TreeSize(executions, children)
    )


def test_a_long_loop_continues_as_new() -> None:
    found = whole({"l": loop(10_000, a=STEP)})
    assert (found.executions, found.events, found.continued) == (10_001, 30_002, 3)


def test_a_price_for_the_dearest_model_within_the_budget() -> None:
    prices = {"openai/gpt-4": (Decimal("0.01"), Decimal("0.02")), "qwen/x": (Decimal("0.1"), Decimal("0.1"))}
    steps = {"a": ASK, "b": {"kind": "agent", "agent": "any", "prompt": "${steps.a.output}"}}
    document = {"name": "x", "agents": AGENTS, "steps": steps}
    first = Decimal("0.01") * 100 + Decimal("0.02") * 100
    second = Decimal("0.1") * (5 + 4_096) + Decimal("0.1") * 4_096
    assert estimate(validate(document).definition, prices.get).usd == first + second
    bounded = {**document, "budget": {"usd": 1.5}}
    assert estimate(validate(bounded).definition, prices.get).usd == Decimal("1.5")
    assert estimate(validate(document).definition, lambda _: None).usd is None
