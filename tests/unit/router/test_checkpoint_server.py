"""Checkpoints that decide: how they are loaded and swapped, and what they and rules come to together."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from db.router.decisions import RoutingDecision
from router.checkpoints.storage import Checkpoint
from router.data import features, packing
from router.data.arrays import Floats
from router.data.embedding_cache import EmbeddingCache
from router.data.encoder import WIDTH
from router.data.exploration import SHARE
from router.serve import rules
from router.serve.checkpoint_server import CheckpointServer, ServedCheckpoint, Staff
from router.serve.decisions import LoadedCheckpoint, decide_all
from router.serve.predictions import RoutingQuestion, novel_above
from tests.support.learned import MODELS, PRICES, TOPICS, embed, learned


@pytest.fixture(scope="module")
def good() -> Checkpoint:
    return learned()


@pytest.fixture(scope="module")
def other() -> Checkpoint:
    return learned("b/other", 1)


ASKED = RoutingQuestion(f"{TOPICS[0]} number 7", "coder/algorithms", MODELS)
BY_RULES = rules.choose("sort a list", "coder", MODELS, "key")


def choose(
    checkpoints: Sequence[LoadedCheckpoint],
    key: str = "key",
    question: RoutingQuestion = ASKED,
    **more: object,
) -> RoutingDecision:
    how: dict[str, Any] = {"rules_choice": BY_RULES, "quarantined": (), "prices": PRICES} | more
    row = embed([question.text]) if checkpoints else None
    [decision] = decide_all(
        [question], row, checkpoints, [how["rules_choice"]], how["quarantined"], how["prices"], [key]
    )
    return decision


# -- one decision ---------------------------------------------------------------------------------------


def test_without_a_checkpoint_rules_decide() -> None:
    found = choose([])
    assert (found.model, found.policy, found.candidates) == (BY_RULES.model, "rules-v1", BY_RULES.candidates)
    assert (found.features["checkpoint"], found.fallback) == (None, False)
    assert found.features["votes"] == {"rules": "a/cheap", "memory": None, "neural": None}


def test_a_serving_checkpoint_decides_with_a_floor_for_everybody(good: Checkpoint) -> None:
    found = choose([LoadedCheckpoint(3, "all", good)])
    assert (found.policy, found.features["checkpoint"]) == ("checkpoint-3", 3)
    assert max(found.candidates, key=found.candidates.__getitem__) == "a/good"
    assert min(found.candidates.values()) > 0
    assert sum(found.candidates.values()) == pytest.approx(1)
    assert found.propensity == found.candidates[found.model]
    assert found.features["votes"] == {"rules": "a/cheap", "memory": "a/good", "neural": None}
    about = found.features["predicted"]["a/good"]
    assert 0 < found.features["confidence"] <= about["ok"] <= 1
    low, expected, high = about["tokens"]
    assert low < expected < high <= found.features["budget_tokens"] + 0.5
    assert found.features["budget_tokens"] <= 32_000
    # 15 dollars for a million tokens out, and what goes in at 3.
    assert about["usd"][2] == pytest.approx(high * 15e-6 + 150 * 3e-6, rel=0.1)
    assert choose([LoadedCheckpoint(3, "all", good)]) == found


def test_the_logged_chances_are_those_that_were_used(good: Checkpoint, other: Checkpoint) -> None:
    both = [LoadedCheckpoint(3, "all", good), LoadedCheckpoint(4, "share", other)]
    drawn = [choose(both, f"run/{i}") for i in range(1_000)]
    chances = drawn[0].candidates
    for name in MODELS:
        assert np.mean([one.model == name for one in drawn]) == pytest.approx(chances[name], abs=0.03)
    by = [one.policy for one in drawn]
    assert by.count("checkpoint-4") / len(by) == pytest.approx(SHARE, abs=0.03)
    # The mixture of what both would have done alone, each of which is kept.
    shadow = drawn[0].features["shadow"]
    assert chances == pytest.approx(
        {name: (1 - SHARE) * shadow["3"][name] + SHARE * shadow["4"][name] for name in MODELS}
    )


def test_a_shadow_only_watches(good: Checkpoint, other: Checkpoint) -> None:
    alone, watched = (
        choose([LoadedCheckpoint(3, "all", good)]),
        choose([LoadedCheckpoint(3, "all", good), LoadedCheckpoint(4, "shadow", other)]),
    )
    assert (watched.model, watched.candidates, watched.policy) == (
        alone.model,
        alone.candidates,
        "checkpoint-3",
    )
    assert max(watched.features["shadow"]["4"].items(), key=lambda one: one[1])[0] == "b/other"
    first = choose([LoadedCheckpoint(1, "shadow", good)])
    assert (first.policy, first.candidates, first.features["checkpoint"]) == (
        "rules-v1",
        BY_RULES.candidates,
        None,
    )
    assert "confidence" not in first.features
    assert first.features["shadow"]["1"]["a/good"] > 0.9


def test_a_first_challenger_shares_with_rules(good: Checkpoint) -> None:
    found = [choose([LoadedCheckpoint(1, "share", good)], f"run/{i}") for i in range(200)]
    by = {one.policy for one in found}
    assert by == {"rules-v1", "checkpoint-1"}
    own = found[0].features["shadow"]["1"]
    for one in found:
        assert one.candidates == pytest.approx(
            {name: (1 - SHARE) * BY_RULES.candidates[name] + SHARE * own[name] for name in MODELS}
        )


def test_who_is_quarantined_has_the_floor_only(good: Checkpoint) -> None:
    healthy = rules.choose("sort a list", "coder", MODELS[:1] + MODELS[2:], "key")
    found = choose([LoadedCheckpoint(3, "all", good)], quarantined=["a/good"], rules_choice=healthy)
    assert 0 < found.candidates["a/good"] <= 0.01
    assert found.features["quarantined"] == ["a/good"]
    ruled = choose([], quarantined=["a/good"], rules_choice=healthy)
    assert 0 < ruled.candidates["a/good"] <= 0.01
    assert sum(ruled.candidates.values()) == pytest.approx(1)
    # When everybody is, what fails is not one model.
    assert choose([LoadedCheckpoint(3, "all", good)], quarantined=MODELS).candidates["a/good"] > 0.9


def test_the_incumbent_is_left_for_more_than_the_margin_only(good: Checkpoint) -> None:
    place = MODELS.index("b/other")
    careful = replace(good, economy=replace(good.economy, incumbent=place, margin=2.0, cost_weight=0.0))
    assert choose([LoadedCheckpoint(3, "all", careful)]).candidates["b/other"] > 0.9
    bold = replace(good, economy=replace(good.economy, incumbent=place, margin=0.01, cost_weight=0.0))
    assert choose([LoadedCheckpoint(3, "all", bold)]).candidates["a/good"] > 0.9


def test_cost_is_weighed_by_prices_and_what_has_none_does_not_lead(good: Checkpoint) -> None:
    dear = replace(good, economy=replace(good.economy, margin=0.0, cost_weight=1e4))
    assert choose([LoadedCheckpoint(3, "all", dear)]).candidates["a/cheap"] > 0.9
    unknown = choose([LoadedCheckpoint(3, "all", dear)], prices={"b/other": (1.0, 4.0)})
    assert unknown.candidates["b/other"] > 0.9
    assert unknown.features["unpriced"] == ["a/cheap", "a/good"]
    assert unknown.features["predicted"]["a/good"]["usd"] is None
    none = choose([LoadedCheckpoint(3, "all", dear)], prices={})
    assert none.candidates["a/good"] > 0.9
    assert "not weighed" in none.features["cost"]


def test_what_is_like_nothing_known_goes_to_the_incumbent(good: Checkpoint) -> None:
    at_cheap = replace(good, economy=replace(good.economy, incumbent=0, margin=0.0, cost_weight=0.0))
    strange = RoutingQuestion("Fünfzig Wörter über Quallen, bitte!", "poet/general", MODELS)
    found = choose([LoadedCheckpoint(3, "all", at_cheap)], question=strange)
    assert found.features["novelty"] > novel_above(at_cheap)
    assert found.features["novel"] is True
    assert max(found.candidates, key=found.candidates.__getitem__) == "a/cheap"
    known = choose([LoadedCheckpoint(3, "all", at_cheap)])
    assert "novel" not in known.features
    assert found.features["confidence"] < known.features["confidence"]


def test_a_candidate_that_nobody_has_met_is_asked_now_and_then(good: Checkpoint) -> None:
    question = replace(ASKED, candidates=(*MODELS, "new/model"))
    found = choose([LoadedCheckpoint(3, "all", good)], question=question)
    assert 0 < found.candidates["new/model"] < 0.5
    assert found.features["unpriced"] == ["new/model"]


def test_what_is_asked_again_comes_to_the_same_and_other_prices_to_others(good: Checkpoint) -> None:
    one = LoadedCheckpoint(3, "all", good)
    first = choose([one])
    assert choose([one]) == first == choose([LoadedCheckpoint(3, "all", good)])
    dearer = choose([one], prices={name: (10 * a, 10 * b) for name, (a, b) in PRICES.items()})
    usd = [found.features["predicted"]["a/good"]["usd"][1] for found in (first, dearer)]
    assert usd[1] == pytest.approx(10 * usd[0], rel=1e-3)


# -- rows -----------------------------------------------------------------------------------------------


class Embedder:
    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self._seconds = seconds

    def __call__(self, texts: Sequence[str]) -> Floats:
        time.sleep(self._seconds)
        self.batches.append(len(texts))
        return embed(texts)


async def test_texts_asked_for_together_are_one_forward() -> None:
    embedder = Embedder(0.02)
    rows = EmbeddingCache(embedder)
    texts = [f"text {i % 30}" for i in range(60)]
    found = await asyncio.gather(*(rows.of([text]) for text in texts))
    assert embedder.batches == [30]
    assert np.array_equal(np.concatenate(found), embed(texts))
    await rows.of(texts)
    assert embedder.batches == [30]
    assert (rows.misses, rows.hits) == (60, 60)


async def test_rows_are_bounded_and_the_last_used_stay() -> None:
    rows = EmbeddingCache(Embedder(), most=2)
    for text in ("one 1", "two 2", "one 1", "three 3"):
        await rows.of([text])
    assert len(rows) == 2
    before = rows.forwards
    await rows.of(["one 1"])
    assert rows.forwards == before
    await rows.of(["two 2"])
    assert rows.forwards == before + 1


async def test_an_encoder_that_fails_fails_those_who_asked_and_nobody_later() -> None:
    fails = [True]

    def embedding(texts: Sequence[str]) -> Floats:
        if fails.pop():
            raise RuntimeError("no encoder")
        fails.append(False)
        return embed(texts)

    rows = EmbeddingCache(embedding)
    with pytest.raises(RuntimeError):
        await rows.of(["one 1"])
    fails.append(False)
    assert (await rows.of(["one 1"])).shape == (1, WIDTH + features.LETTERS)


async def test_the_loop_goes_on_while_a_text_is_embedded() -> None:
    rows = EmbeddingCache(Embedder(0.3))
    waiting = asyncio.create_task(rows.of(["slow text"]))
    ticks = 0
    while not waiting.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks > 20


# -- checkpoints ----------------------------------------------------------------------------------------


class Store:
    """Contents by id, as the database would give them."""

    def __init__(self) -> None:
        self.contents: dict[UUID, bytes] = {}
        self.fetched = 0

    def add(self, number: int, value: Checkpoint, state: str = "all") -> ServedCheckpoint:
        id, content = uuid4(), packing.pack(value)
        self.contents[id] = content
        return ServedCheckpoint(id, number, state, hashlib.sha256(content).hexdigest())  # type: ignore[arg-type]

    async def __call__(self, id: UUID) -> bytes:
        self.fetched += 1
        return self.contents[id]


async def ask(
    servant: CheckpointServer, staff: Staff, key: str = "key", question: RoutingQuestion = ASKED
) -> RoutingDecision:
    return await servant.decide(staff, question, BY_RULES, (), PRICES, key)


async def test_a_checkpoint_is_loaded_once_and_rules_decide_until_then(good: Checkpoint) -> None:
    store, servant = Store(), CheckpointServer(embed)
    wanted = [store.add(1, good)]
    first = servant.staff("t", wanted, store)
    assert (first.checkpoints, first.loading) == ((), (1,))
    assert (await ask(servant, first)).policy == "rules-v1"
    assert servant.staff("t", wanted, store).loading == (1,)
    await servant.settled(wanted)
    for _ in range(3):
        decision = await ask(servant, servant.staff("t", wanted, store))
        assert (decision.policy, decision.fallback) == ("checkpoint-1", False)
    assert (store.fetched, servant.loads) == (1, 1)


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
async def test_a_broken_checkpoint_leaves_it_to_rules_flagged(good: Checkpoint, damage: str) -> None:
    store, servant = Store(), CheckpointServer(embed)
    one = store.add(7, good)
    content = store.contents.pop(one.id)
    if damage != "missing":
        store.contents[one.id] = content[:-100] if damage == "truncated" else b"x" + content[1:]
    if damage == "truncated":  # also where the checksum was made of the broken bytes
        one = replace(one, sha256=hashlib.sha256(store.contents[one.id]).hexdigest())
    servant.staff("t", [one], store)
    await servant.settled([one])
    staff = servant.staff("t", [one], store)
    assert staff.lost
    decision = await ask(servant, staff)
    assert (decision.policy, decision.fallback) == ("rules-v1", True)
    assert "checkpoint 7" in decision.features["broken"]


async def test_a_broken_challenger_harms_nobody(good: Checkpoint) -> None:
    store, servant = Store(), CheckpointServer(embed)
    wanted = [store.add(1, good), replace(store.add(2, good, "share"), sha256="0" * 64)]
    servant.staff("t", wanted, store)
    await servant.settled(wanted)
    decision = await ask(servant, servant.staff("t", wanted, store))
    assert (decision.policy, decision.fallback) == ("checkpoint-1", False)
    assert "checkpoint 2" in decision.features["broken"]


async def test_a_checkpoint_that_fails_when_asked_leaves_it_to_rules_flagged(good: Checkpoint) -> None:
    duals = good.success.duals
    for wrong in (duals[:5], duals * np.nan):
        broken = replace(good, success=replace(good.success, duals=wrong))
        decision = await ask(CheckpointServer(embed), Staff((LoadedCheckpoint(9, "all", broken),)))
        assert (decision.policy, decision.fallback) == ("rules-v1", True)
        assert "broken" in decision.features


async def test_a_swap_fails_and_delays_no_request(good: Checkpoint, other: Checkpoint) -> None:
    """Seven swaps under 20 at a time: each decision is by whoever was there, and none waits for a load."""
    store, servant = Store(), CheckpointServer(embed)
    versions = [store.add(number, (good, other)[number % 2]) for number in range(1, 9)]
    present = [versions[0]]
    servant.staff("t", present, store)
    await servant.settled(present)
    times: list[tuple[float, bool]] = []
    decisions: list[RoutingDecision] = []
    over = False

    async def asking(who: int) -> None:
        number = 0
        while not over:
            began = time.perf_counter()
            staff = servant.staff("t", present, store)
            decisions.append(await ask(servant, staff, f"{who}/{number}"))
            times.append((time.perf_counter() - began, bool(staff.loading)))
            number += 1
            await asyncio.sleep(0.001)

    people = [asyncio.create_task(asking(who)) for who in range(20)]
    for version in versions[1:]:
        present[:] = [version]
        servant.staff("t", present, store)
        await servant.settled(present)
        await asyncio.sleep(0.05)
    over = True
    await asyncio.gather(*people)
    assert not any(one.fallback for one in decisions)
    numbers = [one.features["checkpoint"] for one in decisions]
    assert None not in numbers
    assert set(numbers) == set(range(1, 9))
    # Never back to one that was replaced: each request sees the newest there is.
    assert sorted(numbers) == numbers
    while_loading = [seconds for seconds, loading in times if loading]
    assert while_loading
    assert np.median(while_loading) < 0.1


async def test_a_rollback_needs_no_loading(good: Checkpoint, other: Checkpoint) -> None:
    store, servant = Store(), CheckpointServer(embed)
    old, new = store.add(1, good), store.add(2, other)
    for one in (old, new):
        servant.staff("t", [one], store)
        await servant.settled([one])
    decision = await ask(servant, servant.staff("t", [old], store))
    assert (decision.features["checkpoint"], store.fetched) == (1, 2)
    # Without any, rules decide at once, however much is in memory.
    assert (await ask(servant, servant.staff("t", [], store))).policy == "rules-v1"
