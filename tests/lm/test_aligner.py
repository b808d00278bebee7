"""The aligner: it learns when symbols are spoken, and its likelihood is that of all paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.test_timing import paths
from vocable.lm.aligner import Aligner, AlignerConfig
from vocable.lm.timing import PAUSE


def test_it_learns_when_symbols_are_spoken() -> None:
    """Clips of held symbols with noise: after a few steps their borders are found within two frames."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    voice = rng.normal(size=(5, 12))

    def clip() -> tuple[torch.Tensor, list[int], list[int]]:
        symbols = [int(rng.integers(5))]
        while len(symbols) < 6:
            symbols.append(int((symbols[-1] + rng.integers(1, 5)) % 5))
        lengths = rng.integers(4, 9, 6).tolist()
        frames = np.repeat(voice[symbols], lengths, 0)
        return torch.tensor(frames + 0.3 * rng.normal(size=frames.shape)).float(), symbols, lengths

    model = Aligner(AlignerConfig(12, 5, hidden=24))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        batch = [clip() for _ in range(8)]
        vectors = torch.nn.utils.rnn.pad_sequence([v for v, _, _ in batch], batch_first=True)
        sizes = torch.tensor([len(v) for v, _, _ in batch])
        loss = model.loss(vectors, sizes, torch.tensor([s for _, s, _ in batch]), torch.full((8,), 6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    errors = []
    model.eval()
    for _ in range(10):
        vectors, symbols, lengths = clip()
        others = [(symbol + 1) % 5 for symbol in symbols]
        right, wrong = (log_likelihood_of(model, vectors, text) for text in (symbols, others))
        assert right > wrong
        found = model.align(vectors, symbols, 50.0)
        assert [s for s in found.symbols if s != PAUSE] == symbols
        if PAUSE not in found.symbols:
            errors += np.abs(np.cumsum(found.frames) - np.cumsum(lengths))[:-1].tolist()
    assert len(errors) > 20 and np.mean(errors) < 2


def log_likelihood_of(model: Aligner, vectors: torch.Tensor, symbols: list[int]) -> float:
    frames, count = torch.tensor([len(vectors)]), torch.tensor([len(symbols)])
    return float(model.log_likelihood(model(vectors[None], frames), frames, torch.tensor([symbols]), count))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 99))
def test_the_likelihood_is_that_of_all_paths(symbols: list[int], frames: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Aligner(AlignerConfig(4, 3, hidden=8)).eval()
    vectors = torch.randn(frames, 4)
    scores = model(vectors[None], torch.tensor([frames]))[0].detach().numpy()
    sums = [
        sum(scores[t, symbols[place] if place >= 0 else 3] for t, place in enumerate(path))
        for path in paths(symbols, frames)
    ]
    expected = np.logaddexp.reduce(sums) / len(symbols) if sums else -np.inf
    assert log_likelihood_of(model, vectors, symbols) == pytest.approx(expected, abs=1e-4)
    longer = torch.nn.functional.pad(torch.stack([vectors, vectors]), (0, 0, 0, 3), value=7.0)
    texts = torch.tensor([[*symbols, 2], [*symbols, 1]])
    sizes = torch.tensor([frames] * 2)
    together = model.log_likelihood(model(longer, sizes), sizes, texts, torch.tensor([len(symbols)] * 2))
    assert together.tolist() == pytest.approx([expected] * 2, abs=1e-4)
