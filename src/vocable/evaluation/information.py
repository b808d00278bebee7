"""Estimators of the mutual information between tokens and labels, and related figures.

The discrete estimators take a table of counts, with a row for each code and a column for each label; they are in bits.
The contrastive and the variational estimator take the scores of a model; they are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def count_table(codes: np.ndarray, labels: np.ndarray, num_codes: int, num_labels: int) -> np.ndarray:
    """Count how often each label occurs with each code: int [N] and int [N] -> int64 [num_codes, num_labels]."""
    joint = np.bincount(codes * num_labels + labels, minlength=num_codes * num_labels)
    return joint.reshape(num_codes, num_labels)


def entropy(counts: np.ndarray, *, corrected: bool = False) -> float:
    """Estimate the entropy in bits of the distribution that the counts were drawn from.

    corrected: add the first-order term of Miller and Madow.
    """
    total, seen = counts.sum(), counts[counts > 0]
    plug_in = float(-(seen / total * np.log2(seen / total)).sum())
    return plug_in + (len(seen) - 1) / (2 * float(total) * math.log(2)) * corrected


def mutual_information(table: np.ndarray, *, corrected: bool = True) -> float:
    """Estimate I(code; label) in bits.

    The plug-in estimate is too high if counts are low. The corrected one is nearly unbiased if each pair that occurs
    has several counts.
    """
    rows, columns, pairs = (
        entropy(counts, corrected=corrected) for counts in (table.sum(1), table.sum(0), table.ravel())
    )
    return rows + columns - pairs


def pointwise_information(table: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return log2 p(code, label) / (p(code) p(label)) of pairs that are in the table, in bits: [N].

    The mean over all pairs of the table is the plug-in estimate.
    """
    joint = table / table.sum()
    found: np.ndarray = np.log2(joint[codes, labels] / (joint.sum(1)[codes] * joint.sum(0)[labels]))
    return found


def shuffled_information(
    codes: np.ndarray, labels: np.ndarray, num_codes: int, num_labels: int, *, seed: int = 0, draws: int = 5
) -> float:
    """Return the estimate for labels in random order, in bits: the remaining bias, because the true value is 0."""
    rng = np.random.default_rng(seed)
    tables = (count_table(codes, rng.permutation(labels), num_codes, num_labels) for _ in range(draws))
    return float(np.mean([mutual_information(table) for table in tables]))


def phone_purity(table: np.ndarray) -> float:
    """Return how often a label is the most frequent one of its code (HuBERT, arXiv 2106.07447, section V-A)."""
    return float(table.max(1).sum() / table.sum())


def code_purity(table: np.ndarray) -> float:
    """Return how often a code is the most frequent one of its label."""
    return float(table.max(0).sum() / table.sum())


def phone_normalized_information(table: np.ndarray) -> float:
    """Return PNMI, the mutual information divided by the labels' entropy; plug-in, as in HuBERT."""
    return mutual_information(table, corrected=False) / entropy(table.sum(0))


@dataclass(frozen=True)
class Contrastive:
    """An InfoNCE estimate in nats. It cannot exceed its ceiling, even if the true value does."""

    value: float  #: the estimate
    ceiling: float  #: log N, where N is the number of pairs in a batch
    by_pair: Tensor  #: [..., N]; the value is the mean


def info_nce(scores: Tensor) -> Contrastive:
    """Return InfoNCE (van den Oord et al., arXiv 1807.03748) of a critic's scores f(x_i, y_j), [..., N, N].

    Its expectation is a lower bound of I(x; y) for any critic. The mean is over i and over leading axes.
    """
    size = scores.shape[-1]
    matched = scores.diagonal(dim1=-2, dim2=-1)
    by_pair = matched - scores.logsumexp(-1) + math.log(size)
    return Contrastive(float(by_pair.mean()), math.log(size), by_pair)


@dataclass(frozen=True)
class Variational:
    """A vCLUB estimate in nats."""

    value: float  #: the estimate
    infeasible: int  #: pairs whose likelihood under q is 0, which are left out
    pairs: int  #: all pairs, N x N
    by_pair: Tensor  #: [N], log-likelihood of each matched pair minus the mean over all pairs of its x


def vclub(log_q: Tensor) -> Variational:
    """Return vCLUB (Cheng et al., arXiv 2006.12013) of log q(y_j | x_i): [N, N], -inf where the likelihood is 0.

    It is the mean of the matched pairs minus the mean of all pairs. A likelihood of 0 would make it infinite: such
    pairs are left out and counted. Raises ValueError if the likelihood of a matched pair is 0, or log q is NaN or inf.
    """
    if bool((log_q.isnan() | (log_q == math.inf)).any()):
        raise ValueError("log q must be a number or -inf for every pair")
    feasible = log_q > -math.inf
    if not bool(feasible.diagonal().all()):
        raise ValueError("the likelihood of a matched pair is 0: leave its window out")
    value = log_q.diagonal().mean() - log_q[feasible].mean()
    by_x = log_q.masked_fill(~feasible, 0.0).sum(1) / feasible.sum(1)
    return Variational(float(value), int((~feasible).sum()), log_q.numel(), log_q.diagonal() - by_x)


def fit_critic(
    vectors: Tensor, labels: Tensor, num_labels: int, *, steps: int = 300, batch: int = 512, seed: int = 0
) -> Critic:
    """Train a critic of frame vectors [N, D] and labels int64 [N] to distinguish matched pairs from others."""
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
    """f(x, y) = w_y . (x - mean) / deviation + b_y, the most general critic of labels that is linear in x."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, vectors: Tensor, num_labels: int) -> None:
        """vectors: [N, D], to standardise the inputs with."""
        super().__init__()
        self.register_buffer("mean", vectors.mean(0))
        self.register_buffer("deviation", vectors.std(0).clamp_min(1e-6))
        # The default initialisation would draw from the caller's random generator.
        self.score = torch.nn.utils.skip_init(torch.nn.Linear, vectors.shape[1], num_labels)  # type: ignore[no-untyped-call]
        torch.nn.init.zeros_(self.score.weight)
        torch.nn.init.zeros_(self.score.bias)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return the scores of all pairs: [N, D] and int64 [N] -> [N, N]."""
        by_label: Tensor = self.score((vectors - self.mean) / self.deviation)
        return by_label[:, labels]
