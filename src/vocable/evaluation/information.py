"""How much tokens tell of what was said: estimators of mutual information, and what is read beside them.

Discrete ones work on a table of counts, a row for each code, a column for each label; all are in bits. The contrastive
and the variational one work on scores of a model, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def count_table(codes: np.ndarray, labels: np.ndarray, num_codes: int, num_labels: int) -> np.ndarray:
    """How often each label came with each code: two of int [N] -> int64 [num_codes, num_labels]."""
    joint = np.bincount(codes * num_labels + labels, minlength=num_codes * num_labels)
    return joint.reshape(num_codes, num_labels)


def entropy(counts: np.ndarray, corrected: bool = False) -> float:
    """Of the distribution that counts were drawn from, in bits. corrected: with Miller and Madow's first-order term."""
    total, seen = counts.sum(), counts[counts > 0]
    plug_in = float(-(seen / total * np.log2(seen / total)).sum())
    return plug_in + (len(seen) - 1) / (2 * float(total) * math.log(2)) * corrected


def mutual_information(table: np.ndarray, corrected: bool = True) -> float:
    """I(code; label) in bits. The plug-in estimate is too high where counts are few; corrected, it is nearly unbiased
    once there are several counts for each pair that occurs."""
    rows, columns = table.sum(1), table.sum(0)
    return entropy(rows, corrected) + entropy(columns, corrected) - entropy(table.ravel(), corrected)


def pointwise_information(table: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log2 p(code, label) / p(code) p(label) of pairs that the table counted, in bits [N]: over all of them, the mean
    is the plug-in estimate."""
    share = table / table.sum()
    found: np.ndarray = np.log2(share[codes, labels] / (share.sum(1)[codes] * share.sum(0)[labels]))
    return found


def shuffled_information(
    codes: np.ndarray, labels: np.ndarray, num_codes: int, num_labels: int, seed: int = 0, draws: int = 5
) -> float:
    """The same estimate where there is nothing to find, labels in random order: what is left of the bias, in bits."""
    rng = np.random.default_rng(seed)
    tables = (count_table(codes, rng.permutation(labels), num_codes, num_labels) for _ in range(draws))
    return float(np.mean([mutual_information(table) for table in tables]))


def phone_purity(table: np.ndarray) -> float:
    """How often a label is the commonest one of its code (HuBERT, arXiv 2106.07447, section V-A)."""
    return float(table.max(1).sum() / table.sum())


def code_purity(table: np.ndarray) -> float:
    """How often a code is the commonest one of its label."""
    return float(table.max(0).sum() / table.sum())


def phone_normalized_information(table: np.ndarray) -> float:
    """PNMI: the share of the labels' entropy that codes take away; plug-in, as in HuBERT."""
    return mutual_information(table, corrected=False) / entropy(table.sum(0))


@dataclass(frozen=True)
class Contrastive:
    """An InfoNCE estimate in nats; whatever the truth is, it cannot pass its ceiling."""

    value: float
    ceiling: float  #: log N, N the number of pairs that each is told from
    by_pair: Tensor  #: whose mean is the value, [..., N]


def info_nce(scores: Tensor) -> Contrastive:
    """InfoNCE (van den Oord et al., arXiv 1807.03748) of a critic's scores of all pairs, f(x_i, y_j): [..., N, N].

    A lower bound on I(x; y), on average, for any critic; means are over i and over leading axes.
    """
    size = scores.shape[-1]
    matched = scores.diagonal(dim1=-2, dim2=-1)
    by_pair = matched - scores.logsumexp(-1) + math.log(size)
    return Contrastive(float(by_pair.mean()), math.log(size), by_pair)


@dataclass(frozen=True)
class Variational:
    """A vCLUB estimate in nats, and how many pairs were left out of it."""

    value: float
    infeasible: int  #: pairs that q gives no chance at all
    pairs: int  #: all of them, N x N
    by_pair: Tensor  #: each matched pair less the mean of its x with all, [N]


def vclub(log_q: Tensor) -> Variational:
    """vCLUB (Cheng et al., arXiv 2006.12013) of log q(y_j | x_i): [N, N], -inf where q gives y_j no chance.

    The mean of the matched pairs less the mean of all. One pair without a chance would make it infinite: such pairs are
    left out, and counted. ValueError if a pair is matched and yet has no chance, or q is not a number somewhere.
    """
    if bool((log_q.isnan() | (log_q == math.inf)).any()):
        raise ValueError("log q must be a number or -inf for every pair")
    feasible = log_q > -math.inf
    if not bool(feasible.diagonal().all()):
        raise ValueError("a matched pair has no chance: leave its window out")
    value = log_q.diagonal().mean() - log_q[feasible].mean()
    by_x = log_q.masked_fill(~feasible, 0.0).sum(1) / feasible.sum(1)
    return Variational(float(value), int((~feasible).sum()), log_q.numel(), log_q.diagonal() - by_x)


def fit_critic(
    vectors: Tensor, labels: Tensor, num_labels: int, *, steps: int = 300, batch: int = 512, seed: int = 0
) -> Critic:
    """A critic of frame vectors [N, D] and labels int64 [N], trained to tell matched pairs from others."""
    generator = torch.Generator().manual_seed(seed)
    critic = Critic(vectors, num_labels)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(steps):
        pick = torch.randint(len(vectors), (batch,), generator=generator)
        scores = critic(vectors[pick], labels[pick])
        loss = (scores.logsumexp(-1) - scores.diagonal()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return critic.eval()


class Critic(torch.nn.Module):
    """f(x, y) = w_y . (x - mean) / deviation + b_y: for labels, as good as any critic that is linear in x."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, vectors: Tensor, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("mean", vectors.mean(0))
        self.register_buffer("deviation", vectors.std(0).clamp_min(1e-6))
        # Without a random start, which would draw from the caller's generator.
        self.score = torch.nn.utils.skip_init(torch.nn.Linear, vectors.shape[1], num_labels)  # type: ignore[no-untyped-call]
        torch.nn.init.zeros_(self.score.weight)
        torch.nn.init.zeros_(self.score.bias)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Scores of all pairs: [N, D] and int64 [N] -> [N, N]."""
        by_label: Tensor = self.score((vectors - self.mean) / self.deviation)
        return by_label[:, labels]
