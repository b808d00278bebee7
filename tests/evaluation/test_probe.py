from __future__ import annotations

import itertools
import math

import pytest
import torch

from vocable.evaluation import probe

TABLE = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))


def embed(codes: torch.Tensor) -> torch.Tensor:
    return TABLE[codes[0]]


def spelled(text: str, generator: torch.Generator) -> probe.Example:
    """Return codes that spell the text, with two or three frames for each character."""
    codes = [k for k in probe.labels(text).tolist() for _ in range(int(torch.randint(2, 4, (), generator=generator)))]
    return probe.Example(torch.tensor([codes]), text)


def test_normalize() -> None:
    assert probe.normalize("  Don\u2019t — STOP, No. 7!") == "don't stop no"
    assert probe.normalize("Où ça, señor Müller?") == "ou ca senor muller"
    assert probe.readable("Où ça, señor?") == 1.0 and probe.readable("你好") == 0.0


def test_frames_needed() -> None:
    assert probe.frames_needed("all") == 4
    assert probe.frames_needed("a") == 1


def test_a_probe_learns_to_spell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BATCH_FRAMES", 400)
    generator = torch.Generator().manual_seed(1)
    words = ["cat", "dog", "tre", "al", "sea", "mon"]
    texts = [" ".join(pair) for pair in itertools.product(words, words)]
    examples = [spelled(text, generator) for text in texts for _ in range(3)]
    clock = itertools.count()  # a second a step, however busy the machine is
    monkeypatch.setattr(probe.time, "process_time", lambda: float(next(clock)))
    state = torch.get_rng_state()
    trained, steps = probe.train_probe(examples, embed, seconds=400.0, hidden=64)
    assert steps == 400
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on as they would have"
    # In chance's alphabet of 28 hardly a character would be right; alone, so short a training spells them all.
    right = sum(a == b for e in examples for a, b in zip(probe.decode(trained, embed(e.codes)), e.text, strict=False))
    assert right > 0.5 * sum(len(e.text) for e in examples)


@pytest.mark.parametrize("layers", [1, 2])
def test_padding_changes_nothing(layers: int) -> None:
    torch.manual_seed(0)
    model = probe.TextProbe(12, hidden=8, layers=layers).eval()
    clips = [torch.randn(length, 12) for length in (9, 4, 1)]
    with torch.inference_mode():
        together = model(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([9, 4, 1]))
        for row, clip in zip(together, clips, strict=True):
            assert torch.allclose(row[: len(clip)], model(clip[None], torch.tensor([len(clip)]))[0], atol=1e-6)


def test_likelihoods_are_those_of_all_paths() -> None:
    """Compare with the sum over all CTC paths of a tiny case."""
    torch.manual_seed(0)
    model = probe.TextProbe(12, hidden=4).eval()
    windows = [torch.randn(3, 12), torch.randn(3, 12)]
    texts = ["ab", "aa", "abcd"]
    found = torch.stack([probe.log_likelihoods(model, windows, texts[:2])[i] for i in range(2)])
    for i, window in enumerate(windows):
        log_probs = model(window[None], torch.tensor([3]))[0].detach()
        for j, text in enumerate(texts[:2]):
            total = 0.0
            for path in itertools.product(range(len(probe.CHARACTERS) + 1), repeat=3):
                merged = [k for k, _ in itertools.groupby(path)]
                if [k for k in merged if k] == probe.labels(text).tolist():
                    total += math.exp(sum(float(log_probs[t, k]) for t, k in enumerate(path)))
            assert float(found[i, j]) == pytest.approx(math.log(total), abs=1e-4)
    impossible = probe.log_likelihoods(model, [*windows, windows[0]], texts)
    assert bool((impossible[:, 2] == -math.inf).all())


def test_no_text() -> None:
    with pytest.raises(ValueError, match="no clip"):
        probe.train_probe([probe.Example(torch.zeros(1, 2, dtype=torch.int64), "too long")], embed, seconds=1.0)
