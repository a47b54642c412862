"""The network: a mixture of experts over masters, then over the candidates, with heads for what comes of it.

Imports torch at its top: who needs it imports this module within a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from router.network.adapter import NetworkShape
from router.statistics.expectation import BayesianExpectationLayer, order_sensitivity
from router.statistics.histories import ELEMENT, HISTORY, SKIPPED, TEXT, NetworkInput

VALUES: Final = 3
"""Seconds, input tokens, output tokens."""


@dataclass(frozen=True)
class NetworkOutput:
    """Raw output of the network for N steps, K candidates and k orders of the recalled outcomes."""

    success: Tensor
    """(N, k, K) chances, by order."""
    values: Tensor
    """(N, K, VALUES) logs in units of their spread."""
    masters: Tensor
    agents: Tensor
    """(N, 5), (N, K) chances: whom to give it."""
    confidence: Tensor
    """(N,): the chance that whom it would give it to succeeds."""
    embedding: Tensor
    """(N, 512)"""
    asked: Tensor
    """(N, K): 1, and 0 where a step has fewer candidates than others."""

    @property
    def expected(self) -> Tensor:
        """(N, K)"""
        return self.success.mean(1)

    @property
    def order_sensitivity(self) -> Tensor:
        """(N,)"""
        return order_sensitivity(self.success, self.asked)


class Dropout(nn.Module):
    """With chances of its own: what else draws numbers in this process changes nothing."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.chances = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        kept = torch.rand(x.shape, generator=self.chances) >= self.share
        thinned: Tensor = x * kept / (1 - self.share)
        return thinned


class SetEncoder(nn.Module):
    """One transformer layer over elements in an order, which it sees: (B, n, W) to (B, W)."""

    def __init__(self, width: int, size: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.zeros(size, width))
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, elements: Tensor) -> Tensor:
        x = elements + self.position
        batch, size, width = x.shape
        parts = self.mixed(self.before(x)).reshape(batch, size, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        told = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(told.transpose(1, 2).reshape(batch, size, width))
        x = x + self.wide(self.after(x))
        mean: Tensor = x.mean(1)
        return mean


class TaskAgentAttention(nn.Module):
    """The task asks, the candidates' histories answer: (N, E) and (G, K, E) to (N, E)."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.embedding, shape.attention)
        self.key_value = nn.Linear(shape.embedding, 2 * shape.attention)
        self.out = nn.Linear(shape.attention, shape.embedding)

    def forward(self, task: Tensor, histories: Tensor, group: Tensor, asked: Tensor) -> Tensor:
        groups, candidates, _ = histories.shape
        query = self.query(task).reshape(len(task), self.heads, 1, -1)
        # Steps of a group share histories: their keys are made once, and looked up by each.
        both = self.key_value(histories).reshape(groups, candidates, 2, self.heads, -1)
        key, value = both.permute(2, 0, 3, 1, 4)[:, group]
        told = functional.scaled_dot_product_attention(query, key, value, attn_mask=asked[:, None, None])
        found: Tensor = self.out(told.reshape(len(task), -1))
        return found


class MoERouter(nn.Module):
    """A step's text, its candidates' histories and what was recalled, to each one's outcome."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        wide, rank, masters = shape.embedding, shape.rank, shape.masters
        self.task = nn.Sequential(
            Dropout(shape.dropout), nn.Linear(TEXT, wide), nn.GELU(), Dropout(shape.dropout)
        )
        self.history = nn.Sequential(nn.Linear(HISTORY, 64), nn.GELU(), nn.Linear(64, wide))
        self.attention = TaskAgentAttention(shape)
        self.outcome = nn.Linear(ELEMENT, shape.memory_width)
        self.recalled = SetEncoder(shape.memory_width, shape.memory)
        self.masters = nn.Linear(2 * wide, masters)
        # Each master is an expert on what a task asks for; a little of it comes from what was recalled.
        self.asks = nn.Linear(2 * wide, masters * (rank + 1))
        self.asks_recalled = nn.Linear(shape.memory_width, masters * (rank + 1))
        self.ability = nn.Linear(wide, rank)
        self.routes = nn.Linear(2 * wide, masters * rank)
        self.routed = nn.Linear(wide, rank)
        self.lasts = nn.Linear(2 * wide, VALUES * (rank + 1))
        self.lasting = nn.Linear(wide, VALUES * rank)
        self.confidence = nn.Linear(2 * wide, 1)
        # Past the network: it starts as the shrunk rates, and learns what they do not say.
        self.past = nn.Parameter(torch.zeros(SKIPPED + 1))
        self.trust = nn.Parameter(torch.ones(2))

    def forward(self, given: NetworkInput) -> NetworkOutput:
        rank, masters = self.shape.rank, self.shape.masters
        group, asked = torch.from_numpy(given.group), torch.from_numpy(given.asked)
        histories, skipped = torch.from_numpy(given.histories), torch.from_numpy(given.skipped)
        task = self.task(torch.from_numpy(given.rows))
        history = self.history(histories)
        context = torch.cat([task, self.attention(task, history, group, asked)], 1)
        # Each outcome is read once, and then put into all orders: it says the same in any.
        outcomes = self.outcome(torch.from_numpy(given.memory))
        recalled = BayesianExpectationLayer(self.recalled, self.shape.orders).each(outcomes)
        to_masters = functional.softmax(self.masters(context), 1)

        asks = self.asks(context)[:, None] + self.asks_recalled(recalled)
        asks = asks.reshape(*asks.shape[:2], masters, rank + 1)
        asks = torch.einsum("nm,nkmr->nkr", to_masters, asks)
        ability = self.ability(history)[group]
        above = torch.einsum("ncr,nkr->nkc", ability, asks[..., :rank]) / rank**0.5 + asks[..., rank:]
        logit = skipped @ self.past[:SKIPPED] + self.past[SKIPPED]
        success = torch.sigmoid(logit[:, None] + above)

        routes = self.routes(context).reshape(-1, masters, rank)
        scores = torch.einsum("nmr,ncr->nmc", routes, self.routed(history)[group]) / rank**0.5
        scores = scores + self.trust[0] * 4 * success.mean(1).detach()[:, None]
        to_agents = functional.softmax(scores.masked_fill(~asked[:, None], -1e9), 2)
        agents = torch.einsum("nm,nmc->nc", to_masters, to_agents)

        lasts = self.lasts(context).reshape(-1, VALUES, rank + 1)
        lasting = self.lasting(history)[group].reshape(*asked.shape, VALUES, rank)
        values = histories[group][..., 4 : 4 + VALUES] + lasts[:, None, :, rank]
        values = values + torch.einsum("ncvr,nvr->ncv", lasting, lasts[..., :rank]) / rank**0.5

        told = (agents * success.mean(1)).sum(1).detach().clamp(0.01, 0.99)
        confidence = torch.sigmoid(self.confidence(context)[:, 0] + self.trust[1] * torch.logit(told))
        return NetworkOutput(success, values, to_masters, agents, confidence, task, asked.float())


def built(shape: NetworkShape, seed: int) -> MoERouter:
    """With the first weights that `seed` gives: what is added to the past's rates starts small."""
    chances = torch.Generator().manual_seed(seed)
    net = MoERouter(shape)
    small = ("asks", "lasts", "confidence", "masters", "routes")
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.dim() > 1:
                gain = 0.1 if name.startswith(small) else 1.0
                nn.init.xavier_uniform_(weight, gain, generator=chances)
            elif name.endswith("bias"):
                weight.zero_()
        net.past[0] = 1.0
    return net


class Committee(nn.Module):
    """Members that learned from other parts of the past: what they say on average."""

    def __init__(self, members: Sequence[MoERouter]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, given: NetworkInput) -> NetworkOutput:
        said = [member(given) for member in self.members]
        parts = ([getattr(one, part.name) for one in said] for part in fields(NetworkOutput))
        return NetworkOutput(*(torch.stack(part).mean(0) for part in parts))


def reseeded(net: nn.Module, seed: int) -> None:
    """Dropout goes on as from the beginning of `seed`."""
    for number, module in enumerate(net.modules()):
        if isinstance(module, Dropout):
            module.chances.manual_seed(seed * 1000 + number)


@dataclass(frozen=True)
class Targets:
    """Training targets of N steps, NaN where unknown."""

    ok: Tensor
    values: Tensor
    """(N, K), (N, K, VALUES) as `NetworkOutput` has them."""
    wanted: Tensor
    """(N, K): the candidates' chances at steps where several outcomes are known; else zeros."""
    weight: Tensor
    """(N, K): inverse chance of who alone was asked; else zeros."""
    master: Tensor
    """(N,)"""


def loss(said: NetworkOutput, known: Targets, routing: float = 0.1, lasting: float = 0.1) -> Tensor:
    """Success first; whom to give it and what it takes share the embeddings, at lower weight."""
    there = torch.isfinite(known.ok)
    ok = torch.nan_to_num(known.ok)
    p = said.expected.clamp(1e-4, 1 - 1e-4)
    success = functional.binary_cross_entropy(p[there], ok[there])
    logs = torch.log(said.agents + 1e-9)
    # Among those that are known: of the others nobody knows whether they would have been better.
    among = torch.log((said.agents * there).sum(1) + 1e-9)
    chosen = -(known.wanted * (logs - among[:, None])).sum(1).mean()
    chosen = chosen - (known.weight * ok * logs).sum(1).mean()
    masters = functional.nll_loss(torch.log(said.masters + 1e-9), known.master)
    share = (said.agents * there).detach()
    rewarded = (share * ok).sum(1) / share.sum(1).clamp(min=1e-6)
    sure = functional.binary_cross_entropy(said.confidence, rewarded)
    total = success + routing * (chosen + masters + sure)
    finite = torch.isfinite(known.values)
    if finite.any():
        total = total + lasting * functional.smooth_l1_loss(said.values[finite], known.values[finite])
    return total
