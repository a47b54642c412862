"""What new edges bring is foreseen from known ones where those can be learned from, and not elsewhere."""

import json

import numpy as np
import pytest

from router.data.arrays import Floats, Ints
from router.edges.forecast import MIN_EDGES, EdgeForecast, agents_of, foresee
from router.edges.topology import DOUBTED_CHANCE, KEPT_CHANCE, MARGIN, PRUNED_CHANCE, chance

ROLES = ("architect", "coder", "reviewer", "tester", "documenter", "refiner")
DOCUMENTER = ROLES.index("documenter")
ERROR = 0.03
HELPS, HARMS = 0.1, -0.12


class _World:
    """Definitions of four agents and two adaptive edges each; a role's agents are alike, not the same."""

    def __init__(self, seed: int, definitions: int) -> None:
        self.random = np.random.default_rng(seed)
        self.roles = np.random.default_rng(99).normal(size=(len(ROLES), 384))
        self.agents: list[Floats] = []
        self.senders: list[int] = []
        ends: list[tuple[int, int]] = []
        for _ in range(definitions):
            # Half of what is sent is a documenter's.
            who = [DOCUMENTER, *self.random.permutation(np.delete(np.arange(len(ROLES)), DOCUMENTER))[:3]]
            first = len(self.agents)
            self.agents += [self._agent(self.roles[role]) for role in who]
            ends += [(first, first + 2), (first + 1, first + 3)]
            self.senders += [who[0], who[1]]
        self.ends: Ints = np.array(ends).T

    def _agent(self, role: Floats) -> Floats:
        row = role + 0.4 * self.random.normal(size=384) + 1.0
        return np.asarray(row / np.linalg.norm(row))

    def add(self, sender: Floats, receiver: Floats) -> None:
        """One more edge, of which nothing is known."""
        self.agents += [self._agent(sender), self._agent(receiver)]
        self.ends = np.c_[self.ends, [len(self.agents) - 2, len(self.agents) - 1]]

    def foresee(self, true: Floats) -> EdgeForecast:
        """From evidence of those true effects; edges added later are not known."""
        effect = np.full(self.ends.shape[1], np.nan)
        effect[: len(true)] = true + ERROR * self.random.normal(size=len(true))
        return foresee(np.array(self.agents), self.ends, effect, np.where(np.isnan(effect), np.nan, ERROR))


def _planted(world: _World) -> Floats:
    return np.where(np.array(world.senders) == DOCUMENTER, HARMS, HELPS)


def test_who_is_like_those_that_do_not_help_is_doubted_and_who_is_like_those_that_do_is_not() -> None:
    for seed in range(5):
        world = _World(seed, 25)
        for sender in ("documenter", "reviewer"):
            world.add(world.roles[ROLES.index(sender)], world.roles[ROLES.index("coder")])
        found = world.foresee(_planted(world))
        documenter, reviewer = found.effects[-2:]
        assert found.holds
        assert documenter.low < HARMS < documenter.high < MARGIN
        assert reviewer.low < HELPS < reviewer.high and reviewer.mean > MARGIN
        chances = [chance("kept", one.high) for one in (documenter, reviewer)]
        assert chances == [DOUBTED_CHANCE, KEPT_CHANCE]


def test_where_effects_have_nothing_to_do_with_who_talks_nothing_is_foreseen() -> None:
    held = 0
    for seed in range(30):
        world = _World(seed, 4 + seed % 3 * 4)
        held += world.foresee(world.random.permutation(_planted(world))).holds
    assert held <= 2


def test_nor_where_all_edges_bring_the_same() -> None:
    assert sum(_World(seed, 8).foresee(np.full(16, 0.03)).holds for seed in range(20)) <= 2


def test_nine_of_ten_intervals_hold_the_truth() -> None:
    held = []
    for seed in range(20):
        world = _World(seed, 15)
        true = _planted(world)
        found = world.foresee(true[:-4])
        assert found.holds
        held += [one.low <= there <= one.high for one, there in zip(found.effects, true, strict=True)][-4:]
    assert np.mean(held) >= 0.88


def test_of_agents_like_none_that_are_known_little_is_said() -> None:
    world = _World(1, 25)
    strange = np.random.default_rng(7).normal(size=384)
    world.add(world.roles[DOCUMENTER], world.roles[0])
    world.add(strange, world.roles[0])
    known, unknown = world.foresee(_planted(world)).effects[-2:]
    assert unknown.high - unknown.low > 1.5 * (known.high - known.low)
    assert unknown.high > MARGIN


def test_the_same_evidence_foresees_the_same_and_too_little_nothing() -> None:
    assert _World(3, 6).foresee(np.linspace(-0.1, 0.1, 12)) == _World(3, 6).foresee(
        np.linspace(-0.1, 0.1, 12)
    )
    with pytest.raises(ValueError, match=f"found {MIN_EDGES - 1} known edges; expected at least {MIN_EDGES}"):
        _World(3, 6).foresee(np.zeros(MIN_EDGES - 1))


def test_the_network_alone_prunes_nothing_and_moves_no_edge_but_kept_ones() -> None:
    assert chance("kept", -0.5) == DOUBTED_CHANCE > PRUNED_CHANCE
    assert [chance(state, -0.5) for state in ("pinned", "pruned")] == [1.0, PRUNED_CHANCE]
    assert [chance("kept", high) for high in (None, MARGIN, 0.3)] == [KEPT_CHANCE] * 3


def test_an_agent_is_told_by_its_role_else_its_name_and_its_prompt() -> None:
    def asks(agent: str, **more: str) -> dict[str, str]:
        return {"kind": "agent", "agent": agent, "prompt": "Go." + "!" * 600, **more}

    definition = {
        "name": "one",
        "agents": {"a": {"role": "reviewer"}, "scribe": {"model": "openai/gpt-4"}},
        "steps": {
            "first": asks("a"),
            "second": asks("a", role="tester"),
            "each": {
                "kind": "map",
                "over": "${input.items}",
                "max_items": 9,
                "body": {"steps": {"third": asks("scribe")}},
            },
        },
    }
    said = "Go." + "!" * 497
    assert agents_of(json.dumps(definition)) == {
        "first": f"reviewer\n{said}",
        "second": f"tester\n{said}",
        "third": f"scribe\n{said}",
    }
