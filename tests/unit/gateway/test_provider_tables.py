"""What providers send at the end of an answer, shape by shape, as docs/gateway.md shows it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.failures import ELSEWHERE
from gateway.finish_reasons import MEANINGS, WORDS, is_finish, meaning_of, reason_of, refusal
from gateway.usage import MAX_TOKENS, UsageCount, figures_in
from tests.provider_tables import CONSEQUENCES, FINISHES, PAGE, SHAPES, TABLES, Shape, written


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        pytest.param(word, ours, id=f"{who}-{word}")
        for who, words in FINISHES.items()
        for word, ours in words.items()
    ],
)
def test_a_providers_word_becomes_ours(word: str, ours: str | None) -> None:
    assert is_finish(word) == (ours is not None)
    assert ours is None or reason_of(word) == ours


def test_a_word_that_nobody_knows_is_kept_and_counts_as_good() -> None:
    assert reason_of(" Sudden-Idea ") == "sudden_idea"
    assert meaning_of("sudden_idea") == "good"
    assert len(reason_of("x" * 500)) == 40
    assert [is_finish(told) for told in (None, "", " ", "null", 7, ["stop"])] == [False] * 6


def test_every_word_that_is_known_leads_to_itself() -> None:
    assert {reason_of(word): reason for reason, words in WORDS.items() for word in words} == {
        reason: reason for reason in WORDS
    }


def test_the_table_says_what_leads_to_the_fallback() -> None:
    assert set(CONSEQUENCES) == set(MEANINGS)
    for reason, (_, elsewhere) in CONSEQUENCES.items():
        refused = refusal("m", reason)
        assert elsewhere.startswith("yes") == (refused is not None or meaning_of(reason) == "failed")
        if refused:
            assert f"`{refused.code}`" in elsewhere
            assert refused.code in ELSEWHERE


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.who)
def test_a_count_is_read_in_every_shape(shape: Shape) -> None:
    figures = UsageCount()
    for event in shape.events:
        figures |= figures_in(event) or UsageCount()
    assert figures.usage(1_000, 100) == shape.usage
    assert figures.complete == (not shape.usage.assumed)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "reasoning_tokens",
        "input_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "billed_units",
        "cache_read_input_tokens",
    ]
)


@given(
    st.dictionaries(
        st.sampled_from(["usage", "choices", "x_groq", "timings", "usageMetadata"]),
        _JSON | st.lists(st.dictionaries(_NAMES, _JSON)) | st.dictionaries(_NAMES, _JSON),
    )
)
def test_whatever_is_told_comes_to_a_count_that_can_be_booked(event: dict[str, Any]) -> None:
    usage = (figures_in(event) or UsageCount()).usage(1_000, 100)
    assert 0 < usage.input_tokens <= 3 * MAX_TOKENS
    assert 0 <= usage.output_tokens <= 2 * MAX_TOKENS
    assert 0 <= usage.cached_input_tokens <= usage.input_tokens


def test_the_page_shows_the_tables_that_are_tested() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page) == page, "run `python -m tests.provider_tables`"
    assert all(page.count(f"<!-- {name}: ") == 1 for name in TABLES)
