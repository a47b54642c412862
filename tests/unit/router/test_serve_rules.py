"""Routing by rules: the seed's order, and chances that learning can trust."""

import time
from collections import Counter

import pytest

from router.data.exploration import FLOOR
from router.data.task import analyze_task
from router.serve.rules import choose, fallback_choice
from schema.language.catalogue import ROUTABLE_MODELS


@pytest.mark.parametrize(
    ("task", "domain"),
    [
        ("Build an API for Acme Corp with a sorting algorithm", "enterprise"),
        ("Plan the Microsoft migration", "enterprise"),
        ("A report for the Bank of Ireland Foundation", "enterprise"),
        ("Which algorithm fits this REST endpoint?", "algorithms"),
        ("What is the complexity of this API?", "algorithms"),
        ("Add an endpoint", "backend"),
        ("Build a REST service", "backend"),
        ("Build an API", "backend"),
        ("get some rest", "general"),
        ("Algorithms are fun", "general"),
        ("Write a poem", "general"),
        ("", "general"),
    ],
)
def test_domains_in_the_seeds_order(task: str, domain: str) -> None:
    assert analyze_task(task).domain == domain


@pytest.mark.parametrize(
    ("task", "language"),
    [
        ("Write a Python function", "python"),
        ("fix main.py", "python"),
        ("A TypeScript class", "typescript"),
        ("edit app.tsx", "typescript"),
        ("plain JavaScript please", "javascript"),
        ("a Java class", "java"),
        ("C++ templates", "c++"),
        ("a Rust crate", "rust"),
        ("let us go home", "unknown"),
        ("trust me", "unknown"),
    ],
)
def test_languages(task: str, language: str) -> None:
    assert analyze_task(task).language == language


@pytest.mark.parametrize(
    ("task", "needed"),
    [
        ("What changed in 2024?", True),
        ("news since March 2025", True),
        ("the 2026 election", True),
        ("released 2025-03-01", True),
        ("between 2019 and 2024", True),
        ("What changed in 2023?", False),
        ("allocate 2048 bytes on port 2050", False),
        ("return the first 2024 rows", False),
        ("use Next.js 15", True),
        ("use React 19", True),
        ("with Stripe v2024", True),
        ("use React 18", False),
    ],
)
def test_web_search_for_what_is_recent(task: str, needed: bool) -> None:
    assert analyze_task(task).requires_web_search is needed


def test_tokens_are_estimated_from_words_and_marks() -> None:
    assert analyze_task("Sort a list, fast!").estimated_tokens == round(6 * 1.3)


def test_complexity_grows_with_what_is_asked() -> None:
    hard = "Design a distributed, fault-tolerant consensus protocol with encrypted transactions"
    assert [analyze_task(task).complexity for task in ("Say hello", hard)] == ["low", "high"]


def test_a_long_hostile_text_takes_no_time_from_others() -> None:
    began = time.perf_counter()
    for text in ("A " * 200_000, "in 2024 " * 50_000, "Aa Bb, " * 60_000, "a.b" * 100_000):
        analyze_task(text)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("task", "role", "model"),
    [
        ("a Python script", "architect", "deepseek/deepseek-chat"),
        ("a TypeScript class", "coder", "anthropic/claude-3.5-sonnet"),
        ("a poem", "architect", "openai/gpt-4"),
        ("a poem", None, ROUTABLE_MODELS[0]),
        ("a poem", "no such role", ROUTABLE_MODELS[0]),
    ],
)
def test_the_rules_choice_is_the_most_likely(task: str, role: str | None, model: str) -> None:
    decision = choose(task, role, ROUTABLE_MODELS, "key")
    assert max(decision.candidates, key=lambda name: decision.candidates[name]) == model
    assert decision.candidates[model] == pytest.approx(1 - 4 * FLOOR)
    assert min(decision.candidates.values()) == FLOOR
    assert sum(decision.candidates.values()) == pytest.approx(1)
    assert decision.propensity == decision.candidates[decision.model]
    assert (decision.policy, decision.fallback) == ("rules-v1", False)
    assert decision.features["language"] == analyze_task(task).language


def test_the_same_key_draws_the_same() -> None:
    drawn = {choose("a poem", "coder", ROUTABLE_MODELS, "run/step/0").model for _ in range(20)}
    assert len(drawn) == 1


def test_draws_follow_their_chances() -> None:
    drawn = Counter(choose("a poem", "architect", ROUTABLE_MODELS, f"run/{i}").model for i in range(10_000))
    assert drawn["openai/gpt-4"] / 10_000 == pytest.approx(0.92, abs=0.01)
    assert all(drawn[name] / 10_000 == pytest.approx(0.02, abs=0.006) for name in ROUTABLE_MODELS[1:])


def test_one_candidate_is_certain() -> None:
    decision = choose("a poem", None, ["only/one"], "key")
    assert (decision.model, decision.propensity, decision.candidates) == ("only/one", 1.0, {"only/one": 1.0})


def test_very_many_candidates_still_add_up_to_one() -> None:
    decision = choose("a poem", None, [f"m/{i}" for i in range(100)], "key")
    assert sum(decision.candidates.values()) == pytest.approx(1)
    assert min(decision.candidates.values()) > 0


def test_the_fallback_says_that_it_is_one() -> None:
    decision = fallback_choice("reviewer", ROUTABLE_MODELS, "key")
    assert decision.fallback
    assert decision.candidates["anthropic/claude-3.5-sonnet"] == pytest.approx(1 - 4 * FLOOR)
