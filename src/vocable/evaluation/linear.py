"""Linear maps from vectors to labels, with cross-validation over folds of clips.

Scores are (sum, count) for each clip, from the fold in which the clip was not used for fitting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Scores = list[tuple[float, float]]

RIDGE = 1e-3  #: weight of the squared coefficients, as a fraction of the inputs' mean variance


def fold_by_speaker(speakers: Sequence[str], folds: int) -> np.ndarray:
    """Return the fold of each clip, int64 [N]; each speaker's clips are distributed evenly over the folds."""
    counts: dict[str, int] = {}
    fold = []
    for speaker in speakers:
        counts[speaker] = counts.get(speaker, -1) + 1
        fold.append(counts[speaker] % folds)
    return np.array(fold)


def fit_speaker(vectors: Sequence[Tensor], speakers: Sequence[str], fold: np.ndarray) -> Scores:
    """Classify the speaker from the mean vector by logistic regression. Scores: (correct, 1).

    vectors: float64 [T, D] of each clip.
    """
    index = {speaker: i for i, speaker in enumerate(sorted(set(speakers)))}
    means = torch.stack([v.mean(0) for v in vectors])
    labels = torch.tensor([index[speaker] for speaker in speakers])
    scores: Scores = [(0.0, 0.0)] * len(speakers)
    for k in range(fold.max() + 1):
        inside = torch.from_numpy(fold != k)
        one_hot = torch.nn.functional.one_hot(labels[inside], len(index))
        # Stronger regularisation than with frames: there are a few hundred clips of a hundred numbers each.
        weight = softmax_regression(means[inside], one_hot, decay=1e-2)
        correct = (affine(means, weight).argmax(1) == labels).tolist()
        for i in np.flatnonzero(fold == k).tolist():
            scores[i] = (float(correct[i]), 1.0)
    return scores


def fit_labels(inputs: Sequence[Tensor], labels: Sequence[np.ndarray], num_labels: int, fold: np.ndarray) -> Scores:
    """Classify frames by logistic regression. Scores: (correct frames, frames).

    inputs: float64 [N, D] of each clip; labels: int64 [N].
    """
    scores: Scores = [(0.0, 0.0)] * len(labels)
    for k in range(fold.max() + 1):
        inside = np.flatnonzero(fold != k).tolist()
        known = torch.from_numpy(np.concatenate([labels[i] for i in inside]))
        one_hot = torch.nn.functional.one_hot(known, num_labels)
        weight = softmax_regression(torch.cat([inputs[i] for i in inside]), one_hot)
        for i in np.flatnonzero(fold == k).tolist():
            best = affine(inputs[i], weight).argmax(1).numpy()
            scores[i] = float((best == labels[i]).sum()), float(len(best))
    return scores


def fit_values(vectors: Sequence[Tensor], values: Sequence[np.ndarray], fold: np.ndarray) -> Scores:
    """Predict values by ridge regression. Scores: (explained, total) squares, whose ratio over clips is R2.

    vectors: float64 [T, D] of each clip; values: [T], and frames with NaN are left out.
    """
    inputs, targets = [], []
    for v, value in zip(vectors, values, strict=True):
        known = np.flatnonzero(np.isfinite(value[: len(v)]))
        inputs.append(v[torch.from_numpy(known)])
        targets.append(torch.from_numpy(value[known]))
    scores: Scores = [(0.0, 0.0)] * len(values)
    for k in range(fold.max() + 1):
        inside = np.flatnonzero(fold != k).tolist()
        x, y = torch.cat([inputs[i] for i in inside]), torch.cat([targets[i] for i in inside])
        mean_x, mean_y = x.mean(0), y.mean()
        gram = (x - mean_x).T @ (x - mean_x)
        penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + penalty, (x - mean_x).T @ (y - mean_y))
        for i in np.flatnonzero(fold == k).tolist():
            predicted = (inputs[i] - mean_x) @ weight + mean_y
            total = float((targets[i] - mean_y).square().sum())
            scores[i] = total - float((targets[i] - predicted).square().sum()), total
    return scores


def affine(inputs: Tensor, weight: Tensor) -> Tensor:
    """Apply a linear map with a bias: inputs [N, D], weight [D + 1, C], the bias last -> [N, C]."""
    return inputs @ weight[:-1] + weight[-1]


def softmax_regression(vectors: Tensor, counts: Tensor, *, decay: float = 1e-4) -> Tensor:
    """Fit a multinomial logistic regression; return its weight and bias, float64 [D + 1, C], the bias last.

    vectors: [N, D]. counts: [N, C], how often each label occurs with each vector. decay: weight of the squared
    coefficients (of standardised inputs) relative to the mean cross-entropy. The problem is convex and starts at zero,
    so the result does not depend on a seed.
    """
    vectors, weights = vectors.double(), counts.double() / counts.sum()
    mean = weights.sum(1) @ vectors
    deviation = (weights.sum(1) @ (vectors - mean).square()).sqrt().clamp_min(1e-8)
    inputs = (vectors - mean) / deviation
    weight = torch.zeros(vectors.shape[1], counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    bias = torch.zeros(counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -(weights * (inputs @ weight + bias).log_softmax(1)).sum() + decay / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight = (weight / deviation[:, None]).detach()
    return torch.cat([weight, (bias.detach() - mean @ weight)[None]])
