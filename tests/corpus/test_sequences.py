"""Layouts of codes, and their inverses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vocable.corpus.sequences import (
    deduplicate,
    delay,
    flatten,
    offset,
    parallel,
    repeat,
    undelay,
    unflatten,
    unoffset,
    unparallel,
)

SIZE = 37


@st.composite
def clips(draw: st.DrawFn, least: int = 0) -> Tensor:
    layers, frames, seed = draw(st.integers(1, 9)), draw(st.integers(least, 40)), draw(st.integers(0, 99))
    return torch.randint(SIZE, (layers, frames), generator=torch.Generator().manual_seed(seed))


@given(clips())
def test_patterns_and_their_inverses(codes: Tensor) -> None:
    layers, frames = codes.shape
    flat, late, steps = flatten(codes), delay(codes, pad=-1), parallel(codes)
    assert flat.shape == (layers * frames,) and late.shape == (layers, frames + layers - 1)
    assert (late == -1).sum() == layers * (layers - 1)
    for inverse in (unflatten(flat, num_layers=layers), undelay(late), unparallel(steps)):
        assert torch.equal(inverse, codes)


@given(clips(least=1), st.integers(0, 50_000))
def test_ids_and_their_inverse(codes: Tensor, first: int) -> None:
    ids = offset(codes, codebook_size=SIZE, first=first)
    assert torch.equal(unoffset(ids, codebook_size=SIZE, first=first), codes)
    for k, row in enumerate(ids):  # no layer has an id of another
        assert int(row.min()) >= first + k * SIZE and int(row.max()) < first + (k + 1) * SIZE
    if len(codes) > 1:
        with pytest.raises(ValueError, match="is not of layer"):
            unoffset(ids.roll(1, 0), codebook_size=SIZE, first=first)


@given(clips())
def test_runs_and_their_inverse(codes: Tensor) -> None:
    sequence = codes[0] % 3
    runs, durations = deduplicate(sequence)
    assert (runs[1:] != runs[:-1]).all()
    assert torch.equal(repeat(runs, durations), sequence)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no whole frames"):
        unflatten(torch.arange(7), num_layers=2)
    with pytest.raises(ValueError, match="no whole frame"):
        undelay(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="from 0 to 36"):
        offset(torch.tensor([[37]]), codebook_size=SIZE)
