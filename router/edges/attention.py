"""Messages between agents by graph attention: who should hear whom (S0-02), and what passes (S0-13).

Scores exist for edges only, so the cost grows with those and not with pairs of agents (S0-03). Plain torch,
imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from router.data.arrays import Ints, Singles
from router.network.training import one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn


NODE_DIM: Final = 256
MESSAGE_DIM: Final = 32
HEADS: Final = 8
_SLOPE: Final = 0.2
_AT_A_TIME: Final = 1_024
"""Edges whose messages, 1 KB each, are looked at together: all 100,000 at once took three times as long."""
HEARD: Final = 0.75
"""A receiver who gives a sender less than this, in terms of equal attention to everyone, does without."""


@cache
def _class() -> type[nn.Module]:
    import torch
    from torch import nn

    class MessageRoutingGNN(nn.Module):  # type: ignore[misc, unused-ignore]
        """GATv2 (Brody, Alon and Yahav, 2022): attention depends on both ends, and ranks senders anew for
        each receiver."""

        def __init__(self, node_dim: int = NODE_DIM, message_dim: int = MESSAGE_DIM) -> None:
            super().__init__()
            self.message_dim = message_dim
            wide = HEADS * message_dim
            self.says = nn.Linear(node_dim, wide)
            self.asks = nn.Linear(node_dim, wide)
            self.weighs = nn.Parameter(torch.empty(HEADS, message_dim))
            nn.init.xavier_uniform_(self.weighs)

        def forward(
            self, node_features: Tensor, edge_index: Tensor, carried: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            number, shape = len(node_features), (-1, HEADS, self.message_dim)
            own = torch.arange(number, device=node_features.device)
            senders, receivers = torch.cat([edge_index, torch.stack([own, own])], 1)
            said, asked = self.says(node_features).view(shape), self.asks(node_features).view(shape)
            parts = [slice(at, at + _AT_A_TIME) for at in range(0, len(senders), _AT_A_TIME)]
            scores = [self._scores(said[senders[part]], asked[receivers[part]]) for part in parts]
            attention = _shares(torch.cat(scores), receivers, number)
            passed = attention
            if carried is not None:
                passed = attention * torch.cat([carried, carried.new_ones(number)])[:, None]
            heard = torch.zeros_like(said)
            for part in parts:
                heard.index_add_(0, receivers[part], passed[part].unsqueeze(-1) * said[senders[part]])
            return heard.flatten(1), attention

        def _scores(self, said: Tensor, asked: Tensor) -> Tensor:
            return (nn.functional.leaky_relu(said + asked, _SLOPE) * self.weighs).sum(-1)

    return MessageRoutingGNN


def _shares(scores: Tensor, receivers: Tensor, number: int) -> Tensor:
    """(E + N, H) softmax over each receiver's edges."""
    import torch

    index = receivers.unsqueeze(-1).expand_as(scores)
    # Only for the numbers' size; the softmax is the same for any shift.
    most = torch.full((number, scores.shape[1]), -torch.inf, dtype=scores.dtype, device=scores.device)
    most = most.scatter_reduce(0, index, scores.detach(), "amax")
    weights = (scores - most[receivers]).exp()
    total = torch.zeros_like(most).index_add(0, receivers, weights)
    return weights / total[receivers]


def message_routing_gnn(node_dim: int = NODE_DIM, message_dim: int = MESSAGE_DIM, seed: int = 0) -> nn.Module:
    """A `MessageRoutingGNN`: forward(node_features (N, node_dim), edge_index (2, E) of senders and receivers,
    carried (E,) or None) -> what each hears (N, 8 * message_dim), and attention (E + N, 8).

    The last N edges are everyone's own. `carried` is what share of an edge's message passes, 1 unless said.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _class()(node_dim, message_dim)


@dataclass(frozen=True)
class AgentGraph:
    """A collaboration: N agents, E edges."""

    nodes: Singles
    """(N, D)"""
    edges: Ints
    """(2, E) senders and receivers."""
    labels: Ints
    """(N,) the right answer of each agent; -1 where none is asked."""


@dataclass(frozen=True)
class TrainedAttention:
    """Attention that has been trained."""

    gnn: Any
    reads: Any
    """Layer from an agent's knowledge and messages to its answer."""


def receivers(learned: TrainedAttention | None, nodes: Singles, edges: Ints, sender: int) -> list[int]:
    """Return the declared receivers that get a sender's output, in their order.

    All of them before anything was learned; afterwards always at least the one that attends to the sender
    most.
    """
    declared = np.flatnonzero(edges[0] == sender)
    names = [int(one) for one in dict.fromkeys(edges[1, declared].tolist())]
    if learned is None or not names:
        return names
    share = attention_of(learned, nodes, edges)
    # Everyone attends to itself too.
    equal = 1 / (np.bincount(edges[1], minlength=len(nodes)) + 1)
    heard = {int(edges[1, at]): float(share[at] / equal[edges[1, at]]) for at in declared}
    most = max(names, key=lambda name: heard[name])
    return [name for name in names if heard[name] >= HEARD or name == most]


def attention_of(learned: TrainedAttention, nodes: Singles, edges: Ints) -> Singles:
    """(E,) what share of a receiver's attention an edge has, over all heads."""
    import torch

    with torch.inference_mode():
        _, attention = learned.gnn(torch.from_numpy(nodes), torch.from_numpy(edges))
    found: Singles = attention[: edges.shape[1]].mean(1).numpy()
    return found


def messages_passed(nodes: Singles, edges: Ints, seed: int = 0) -> Singles:
    """(E, 256): what each edge carries to its receiver, before anything was learned: what the sender says,
    weighed by the receiver's attention. `nodes` (N, 256), `edges` (2, E)."""
    import torch

    gnn = message_routing_gnn(nodes.shape[1], seed=seed)
    known, ends = torch.from_numpy(nodes), torch.from_numpy(edges)
    with torch.inference_mode():
        _, attention = gnn(known, ends)
        said = gnn.says(known).unflatten(1, (HEADS, -1))[ends[0]]  # type: ignore[operator]
        passed: Singles = (attention[: len(said)].unsqueeze(-1) * said).flatten(1).numpy()
    return passed


def learn(graphs: Sequence[AgentGraph], classes: int, steps: int = 300, seed: int = 0) -> TrainedAttention:
    """Train attention on agents' right answers. Full batches of all graphs as one, so the same graphs
    and seed give the same weights. Raises ValueError without graphs."""
    import torch
    from torch import nn

    if not graphs:
        raise ValueError("found no graphs; expected at least one to learn from.")
    nodes, edges, labels = _joined(graphs)
    gnn = message_routing_gnn(nodes.shape[1], seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reads = nn.Linear(nodes.shape[1] + HEADS * MESSAGE_DIM, classes)
    asked = labels >= 0
    optimizer = torch.optim.Adam([*gnn.parameters(), *reads.parameters()], lr=5e-3)
    with one_thread():
        for _ in range(steps):
            heard, _ = gnn(nodes, edges)
            said = reads(torch.cat([nodes, heard], 1))[asked]
            loss = nn.functional.cross_entropy(said, labels[asked])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return TrainedAttention(gnn.eval(), reads.eval())


def _joined(graphs: Sequence[AgentGraph]) -> tuple[Tensor, Tensor, Tensor]:
    """Many graphs as one without edges between them."""
    import torch

    starts = np.cumsum([0, *(len(graph.nodes) for graph in graphs[:-1])])
    edges = np.concatenate([graph.edges + start for graph, start in zip(graphs, starts, strict=True)], 1)
    nodes = np.concatenate([graph.nodes for graph in graphs])
    labels = np.concatenate([graph.labels for graph in graphs])
    return torch.from_numpy(nodes), torch.from_numpy(edges), torch.from_numpy(labels)
