"""Batches of items of similar length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vocable.corpus.batches import padded_batches
from vocable.corpus.manifest import Utterance
from vocable.corpus.worker import batches_of


def test_order_and_limit() -> None:
    for lengths in ([1, 1, 2, 3, 3, 9, 40], [40, 9, 3, 3, 2, 1, 1], [3, 1, 9, 1, 40, 2, 3], [50], []):
        batches = list(padded_batches(lengths, length=float, limit=10))
        assert [n for batch in batches for n in batch] == lengths
        assert all(batch and (len(batch) == 1 or len(batch) * max(batch) <= 10) for batch in batches)
    assert list(padded_batches([1, 1, 2, 3, 3, 9, 40], length=float, limit=10)) == [[1, 1, 2], [3, 3], [9], [40]]


def test_batches_of_utterances_have_little_padding() -> None:
    rng = np.random.default_rng(0)
    utterances = [Utterance(f"u{i}", Path(), float(d)) for i, d in enumerate(rng.uniform(0.5, 40, 200))]
    batches = batches_of(utterances, 60.0)
    assert sorted(u.id for batch in batches for u in batch) == sorted(u.id for u in utterances)
    assert all(len(b) == 1 or len(b) * b[0].duration <= 60 for b in batches)
    padded = sum(len(b) * b[0].duration for b in batches)
    assert padded < 1.1 * sum(u.duration for u in utterances)
