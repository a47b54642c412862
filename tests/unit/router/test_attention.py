"""Graph attention over a collaboration's agents, on a task that only communication can solve."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from router.edges.attention import (
    HEADS,
    AgentGraph,
    TrainedAttention,
    _joined,
    learn,
    message_routing_gnn,
    messages_passed,
    receivers,
)

AGENTS, VALUES, WIDTH = 5, 4, 32


def _shapes(number: int, edges: int) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    index = torch.randint(number, (2, edges), generator=chance)
    return torch.randn(number, 256, generator=chance), index


def test_attention_sums_to_one_over_each_receivers_edges_in_every_head() -> None:
    nodes, edges = _shapes(20, 60)
    heard, attention = message_routing_gnn()(nodes, edges)
    assert heard.shape == (20, 8 * 32)
    assert attention.shape == (60 + 20, HEADS)
    into = torch.cat([edges[1], torch.arange(20)])
    sums = torch.zeros(20, HEADS).index_add(0, into, attention)
    assert torch.allclose(sums, torch.ones(20, HEADS), atol=1e-5)


def test_it_scores_edges_and_not_pairs() -> None:
    counted = {edges: message_routing_gnn()(*_shapes(500, edges))[1].shape[0] for edges in (0, 1_000, 10_000)}
    assert counted == {edges: edges + 500 for edges in counted}


def test_many_edges_come_to_the_same_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, edges = _shapes(50, 1_000)
    carried = torch.rand(1_000, generator=torch.Generator().manual_seed(2))
    whole = message_routing_gnn()(nodes, edges, carried)
    monkeypatch.setattr("router.edges.attention._AT_A_TIME", 64)
    for one, other in zip(whole, message_routing_gnn()(nodes, edges, carried), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_what_an_edge_carries_is_what_its_receiver_hears_but_for_its_own() -> None:
    nodes, _ = _shapes(4, 1)
    # 3 hears 0 and 1; 2 hears nobody but itself.
    edges = torch.tensor([[0, 1], [3, 3]])
    heard, _ = message_routing_gnn()(nodes, edges)
    alone, _ = message_routing_gnn()(nodes, edges, torch.zeros(2))
    passed = messages_passed(nodes.numpy(), edges.numpy())
    assert passed.shape == (2, 256)
    assert np.allclose(passed.sum(0), (heard - alone)[3].detach().numpy(), atol=1e-5)


def test_nothing_is_heard_without_an_edge() -> None:
    nodes, _ = _shapes(4, 1)
    gnn, edges = message_routing_gnn(), torch.tensor([[0], [1]])
    before, _ = gnn(nodes, edges)
    nodes[0] += 1
    after, _ = gnn(nodes, edges)
    assert torch.equal(before[2:], after[2:])
    assert not torch.equal(before[1], after[1])


def test_large_scores_do_not_overflow() -> None:
    nodes, edges = _shapes(10, 30)
    heard, attention = message_routing_gnn()(nodes * 1e6, edges)
    assert torch.isfinite(heard).all() and torch.isfinite(attention).all()


def _teams(number: int, seed: int) -> list[tuple[AgentGraph, list[int]]]:
    """Two who are asked, three who each know a value by a name; and who knows what each of the two is asked.

    Neither asker knows a value, and no knower knows what is asked.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        names, values = random.permutation(3), random.integers(VALUES, size=3)
        nodes = np.zeros((AGENTS, WIDTH), dtype=np.float32)
        nodes[np.arange(2, 5), names] = 1
        nodes[np.arange(2, 5), 8 + values] = 1
        wanted = random.permutation(3)[:2]
        nodes[np.arange(2), 16 + wanted] = 1
        knowers = [int(np.flatnonzero(names == one)[0]) for one in wanted]
        labels = np.array([values[knowers[0]], values[knowers[1]], -1, -1, -1])
        edges = np.array([[2, 3, 4, 2, 3, 4], [0, 0, 0, 1, 1, 1]])
        found.append((AgentGraph(nodes, edges, labels), [one + 2 for one in knowers]))
    return found


@pytest.fixture(scope="module")
def learned() -> TrainedAttention:
    return learn([graph for graph, _ in _teams(120, 1)], VALUES, steps=80)


def accuracy(learned: TrainedAttention, graphs: Sequence[AgentGraph], carried: float = 1.0) -> float:
    """Return the share of agents that answer right when this share of every message passes."""
    nodes, edges, labels = _joined(graphs)
    with torch.inference_mode():
        heard, _ = learned.gnn(nodes, edges, torch.full((edges.shape[1],), carried))
        said = learned.reads(torch.cat([nodes, heard], 1)).argmax(1)
    asked = labels >= 0
    return float((said[asked] == labels[asked]).float().mean())


def test_what_only_communication_can_solve_is_learned_and_lost_without_messages(
    learned: TrainedAttention,
) -> None:
    graphs = [graph for graph, _ in _teams(100, 2)]
    assert accuracy(learned, graphs) > 0.9
    assert accuracy(learned, graphs, carried=0.0) < 0.5


def test_who_needs_what_a_sender_says_gets_it_and_others_mostly_not(learned: TrainedAttention) -> None:
    needed = useless = told = wasted = 0
    for graph, knowers in _teams(100, 3):
        for sender in (2, 3, 4):
            sent = receivers(learned, graph.nodes, graph.edges, sender)
            assert sent and set(sent) <= {0, 1}
            wants = {asker for asker, knower in enumerate(knowers) if knower == sender}
            needed, told = needed + len(wants), told + len(wants & set(sent))
            if wants:
                useless, wasted = useless + 1, wasted + len(set(sent) - wants)
    assert told / needed > 0.95
    assert wasted / useless < 0.5


def test_untrained_attention_keeps_everything() -> None:
    graph, _ = _teams(1, 4)[0]
    assert receivers(None, graph.nodes, graph.edges, 3) == [0, 1]
    assert receivers(None, graph.nodes, graph.edges, 0) == []


def test_the_same_seed_learns_the_same() -> None:
    graphs = [graph for graph, _ in _teams(20, 5)]
    first, second = (learn(graphs, VALUES, steps=5, seed=7) for _ in range(2))
    assert torch.equal(first.gnn.weighs, second.gnn.weighs)


def test_without_graphs_nothing_is_learned() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        learn([], VALUES)
