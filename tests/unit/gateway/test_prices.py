"""Prices that hold for everybody, and what estimates make of them."""

import subprocess
import sys
from decimal import Decimal

import pytest

from schema.rules.size import estimate
from schema.rules.validate import validate


def test_litellms_prices_are_read_without_importing_it() -> None:
    code = """
import sys
from gateway.prices import at_hand, general_price
assert at_hand("openai/gpt-4") and not at_hand("openai/gpt-3.5-turbo")
known = general_price("openai/gpt-3.5-turbo")
print(known.price.input_usd, general_price("acme/x"), "litellm" in sys.modules)
assert at_hand("openai/gpt-3.5-turbo")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    price, unknown, imported = said.split()
    assert (Decimal(price), unknown, imported) == (Decimal("0.5"), "None", "False")


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("${input.text}", 11),
        ("${input.text + input.text}", 21),
        ("${input.nothing}", 4_096),
        ("${steps.first.output}", 4_096),
        ("${input.text + string(steps.first.output)}", 4_096),
    ],
)
def test_what_a_prompt_reads_from_a_known_input_is_measured(prompt: str, tokens: int) -> None:
    document = {
        "name": "x",
        "agents": {"a": {"model": "openai/gpt-4", "max_output_tokens": 1}},
        "steps": {
            "first": {"kind": "transform", "value": 1},
            "ask": {"kind": "agent", "agent": "a", "prompt": prompt},
        },
    }
    definition = validate(document).definition
    found = estimate(definition, lambda _: (Decimal(1), Decimal(0)), input={"text": "x" * 30})
    assert found.usd == tokens + len(prompt) // 3
