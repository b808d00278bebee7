"""Batches of clips of similar length."""

from __future__ import annotations

import numpy as np

from vocable.lm.batching import draw_similar_lengths


def test_clips_of_all_lengths_are_drawn_alike() -> None:
    lengths = np.random.default_rng(0).integers(30, 800, 400)
    rng, visits = np.random.default_rng(1), np.zeros(400)
    for _ in range(3000):
        visits[draw_similar_lengths(lengths, 3000, rng)] += 1
    bands = [visits[np.argsort(lengths)][at : at + 80].mean() for at in range(0, 400, 80)]
    assert max(bands) < 1.6 * min(bands), "about: no batch begins before the shortest"
