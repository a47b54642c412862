"""The skill table: what is planted in it can be found, and its means are kept."""

import random
import statistics

import pytest

from infra.simulator.answers import answer_text
from infra.simulator.flaws import Severity, find_flaws
from infra.simulator.prompt import read_prompt
from infra.simulator.skills import SKILL_TABLE, traits_of

TASK = "Implement an algorithm in Python that finds the shortest path in a graph"


def _work(seed: int, model: str, role: str, task: str) -> str:
    system = {"role": "system", "content": f"You are a {role}."}
    return answer_text(seed, model, [system, {"role": "user", "content": task}])


def _issues(architect: str, coder: str) -> float:
    """Faults in the coder's work on the architect's design, on average."""
    designs = [_work(seed, architect, "software architect", TASK) for seed in range(600)]
    work = [_work(seed, coder, "coder", f"{TASK}\n{design}") for seed, design in enumerate(designs)]
    return sum(len(find_flaws(code)) for code in work) / len(work)


def test_the_seeds_pair_has_fifteen_percent_fewer_issues() -> None:
    best = _issues("qwen/qwen-2.5-coder", "deepseek/deepseek-chat")
    usual = _issues("openai/gpt-4", "deepseek/deepseek-chat")
    assert 1 - best / usual == pytest.approx(0.15, abs=0.05)


def test_no_reviewer_sees_more_than_claude_and_each_sees_the_worst_best() -> None:
    severities: tuple[Severity, ...] = ("minor", "major", "critical")
    for traits in (*SKILL_TABLE.values(), traits_of("someone/else")):
        for domain in traits.skill:
            rates = [traits.finding_rate(domain, severity) for severity in severities]
            assert rates == sorted(rates)
    claude = SKILL_TABLE["anthropic/claude-3.5-sonnet"]
    assert all(
        claude.finds[severity] >= traits.finds[severity]
        for traits in SKILL_TABLE.values()
        for severity in severities
    )


@pytest.mark.parametrize("model", SKILL_TABLE)
def test_timings_scatter_around_their_means(model: str) -> None:
    traits, draw = SKILL_TABLE[model], random.Random(model)
    firsts, speeds = zip(*(traits.timing(draw) for _ in range(4000)), strict=True)
    assert statistics.fmean(firsts) == pytest.approx(traits.first_token_ms / 1000, rel=0.06)
    assert statistics.fmean(speeds) == pytest.approx(traits.tokens_per_second, rel=0.06)
    assert max(firsts) <= 4 * traits.first_token_ms / 1000
    assert statistics.quantiles(firsts, n=20)[-1] > 1.3 * statistics.median(firsts)


def test_an_answers_length_belongs_to_the_request() -> None:
    def length(model: str, number: int) -> float:
        return read_prompt(0, model, [{"role": "user", "content": f"Say why, {number}."}]).length

    assert length("openai/gpt-4", 1) == length("openai/gpt-4", 1)
    lengths = [length("openai/gpt-4", number) for number in range(500)]
    assert statistics.fmean(lengths) == pytest.approx(1.1, rel=0.05)
    assert (
        len(
            {
                len(answer_text(seed, "openai/gpt-4", [{"role": "user", "content": "Say why."}]).splitlines())
                for seed in range(50)
            }
        )
        > 2
    )
