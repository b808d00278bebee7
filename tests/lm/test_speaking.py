"""Decoding of AR: which tokens may come when, takes and their judge, and texts learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch

from lm.test_ar import SIZE, SYMBOLS, make
from vocable.lm.ar import AR, ARConfig
from vocable.lm.sampling import Sampling
from vocable.lm.speaking import Utterance, speak
from vocable.lm.takes import Take
from vocable.lm.timing import PAUSE, Timing
from vocable.lm.transformer import IGNORED, TransformerConfig, cross_entropy

GREEDY = Sampling(temperature=0.0)
LONGEST_SYMBOL, MOST_FRAMES = 40, 15  # frames, at 50 frames per second


def write(model: AR, symbols: Sequence[int], **options: Any) -> list[Take]:
    """Write the takes of one text."""
    return speak(model, [Utterance(symbols, **options)])[0]


@pytest.mark.parametrize("look_ahead", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_timed_model_says_every_symbol_once_and_ends(seed: int, look_ahead: bool) -> None:
    """Whatever its weights: random ones here."""
    symbols = torch.randint(SYMBOLS, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
    for take in write(make(True, seed, look_ahead), symbols, sampling=Sampling(1.0, top_p=1.0), takes=3, seed=seed):
        assert len(take.codes) == len(take.symbols) and all(0 <= code < SIZE for code in take.codes)
        runs = [(symbol, len(list(run))) for symbol, run in groupby(take.symbols)]
        said = [symbol for symbol, _ in runs if symbol != PAUSE]
        assert said == [symbol for symbol, _ in groupby(symbols)] or len(said) == len(symbols)
        assert all(length <= 40 for symbol, length in runs if symbol == PAUSE)
        assert max(length for _, length in runs) <= LONGEST_SYMBOL * len(symbols)


@pytest.mark.parametrize(("timed", "look_ahead"), [(True, False), (True, True), (False, False)])
def test_its_likelihood_is_that_of_the_full_forward(timed: bool, look_ahead: bool) -> None:
    """What it adds up step by step, with a cache, from what it may choose."""
    model, symbols, prompt = make(timed, 0, look_ahead), [2, 0, 5], torch.tensor([1, 1, 4])
    (take,) = write(model, symbols, prompt=prompt, sampling=Sampling(1.0, top_p=1.0, repeats=0), seed=3)
    if timed:
        runs = [(symbol, len(list(run))) for symbol, run in groupby(take.symbols)]
        if [s for s, _ in runs if s != PAUSE] != symbols:
            pytest.skip("a symbol came twice in a row")
        timing = Timing([s for s, _ in runs], [n for _, n in runs])
    else:
        timing = None
    inputs, targets = model.example(symbols, torch.tensor(take.codes), timing, prompt)
    with torch.no_grad():
        scores = model(inputs[None])[0].log_softmax(-1)
    learned = targets != IGNORED
    full = scores[learned].gather(1, targets[learned][:, None]).sum()
    # It chooses among fewer tokens than the model knows, so what it chose is no less likely there.
    assert take.log_likelihood >= float(full) - 1e-3 and take.log_likelihood < 0


def test_one_seed_repeats_and_takes_differ() -> None:
    model, symbols = make(), [0, 1, 2, 3]
    first, again = (write(model, symbols, takes=3, seed=5, sampling=Sampling(1.0)) for _ in range(2))
    assert [take.codes for take in first] == [take.codes for take in again]
    assert first[0].codes != first[1].codes


@torch.no_grad()
def test_a_judge_lets_the_better_takes_go_on() -> None:
    """This one likes low codes, and has to be told how far in the text each take is."""
    model, symbols = make(seed=1), [0, 1, 2, 3, 4] * 6

    def low(takes: Sequence[Take]) -> list[float]:
        for take in takes:  # the last symbol may still be spoken, and then counts for nothing
            begun = len([s for s, _ in groupby(take.symbols) if s != PAUSE])
            ended = len([s for s, _ in groupby(take.symbols[: take.finished_frames]) if s != PAUSE])
            assert take.num_finished == ended and begun - take.num_finished in (0, 1)
        return [-sum(take.codes) / len(take.codes) for take in takes]

    alone, judged = (write(model, symbols, sampling=Sampling(1.0), takes=8, judge=j, seed=3) for j in (None, low))
    assert sum(low(judged)) > sum(low(alone)) + 8 * 0.5
    assert len({tuple(take.codes[:10]) for take in judged}) < 4 < len({tuple(take.codes) for take in judged})
    assert len({tuple(take.codes[:10]) for take in alone}) == 8
    # Each goes on from its own past: what it chose is what the model says behind it.
    for take in judged:
        runs = [(symbol, len(list(run))) for symbol, run in groupby(take.symbols)]
        timing = Timing([s for s, _ in runs], [n for _, n in runs])
        inputs, targets = model.example(symbols, torch.tensor(take.codes), timing, None)
        full = -cross_entropy(model(inputs[None]), targets[None]) * (targets != IGNORED).sum()
        assert float(full) - 1e-2 <= take.log_likelihood


def test_texts_in_a_batch_are_those_of_each_alone() -> None:
    def low(takes: Sequence[Take]) -> list[float]:
        return [-sum(take.codes) / len(take.codes) for take in takes]

    model = make(seed=2)
    texts = [
        Utterance([0, 1, 2, 3] * 8, sampling=Sampling(1.0), takes=4, judge=low, seed=1),
        Utterance([4, 0], prompt=torch.tensor([1, 1, 4]), sampling=Sampling(0.7), seed=2),
        Utterance([5, 3, 1], sampling=GREEDY),
        Utterance([0, 1, 2, 3], sampling=Sampling(1.0), takes=2, seed=1),
    ]
    for text, takes in zip(texts, speak(model, texts), strict=True):
        [alone] = speak(model, [text])
        assert [take.codes for take in takes] == [take.codes for take in alone]
        assert [take.log_likelihood for take in takes] == pytest.approx([take.log_likelihood for take in alone])


def test_it_learns_clips_by_heart() -> None:
    model = make().train()
    clips = [
        ([0, 1, 2], torch.tensor([3, 3, 4, 5, 5, 6]), Timing([0, 1, PAUSE, 2], [2, 1, 1, 2])),
        ([2, 1], torch.tensor([6, 6, 1]), Timing([2, 1], [2, 1])),
        ([4], torch.tensor([9, 8, 9, 8]), Timing([4], [4])),
        # As long a pause as speech has, and as is spoken if it may be.
        ([3, 4], torch.arange(50) % 10, Timing([3, PAUSE, 4], [2, LONGEST_SYMBOL + 5, 3])),
    ]
    examples = [model.example(symbols, codes, timing, None) for symbols, codes, timing in clips]
    inputs = torch.nn.utils.rnn.pad_sequence([i for i, _ in examples], batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence([t for _, t in examples], batch_first=True, padding_value=IGNORED)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for symbols, codes, timing in clips:
        (take,) = write(model, symbols, sampling=Sampling(temperature=0.0, longest_pause=1.2))
        assert take.codes == codes.tolist() and take.symbols == timing.by_frame() and not take.warnings


def test_what_goes_wrong_is_named() -> None:
    untimed = make(timed=False)
    with torch.no_grad():
        untimed.head.weight.zero_()
    (take,) = write(untimed, [0] * 6, sampling=GREEDY)  # all scores are equal: code 0, for ever
    assert len(take.codes) == MOST_FRAMES * 6
    assert take.warnings == ["a loop from frame 1 on", "did not come to an end"]
    timed = make()
    with torch.no_grad():
        timed.head.weight.zero_()
    (take,) = write(timed, [0, 1], sampling=GREEDY)
    assert len(take.codes) == 2 * LONGEST_SYMBOL and len(take.warnings) == 2
    assert take.warnings[0] == "symbol 1 of 2 was held for too long"
    (take,) = write(timed, [0] * 40, sampling=GREEDY)  # the first 20 take all the time that there is
    most = MOST_FRAMES * 40 + 2 * LONGEST_SYMBOL
    assert take.warnings[-1] == "did not come to an end" and take.num_finished == 40
    assert len(take.codes) == most + 40 - most // LONGEST_SYMBOL
    with pytest.raises(ValueError, match="nothing to say"):
        write(timed, [])
    for wrong in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"longest_pause": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_staying_is_one_choice_however_many_codes_share_it() -> None:
    """All tokens equally likely: 12 codes against 6 symbols, END and a pause, so speech stays 12 times in 20."""
    model = make()
    with torch.no_grad():
        model.head.weight.zero_()
    frames = []
    for seed in range(60):
        for take in write(model, [0, 1, 2], sampling=Sampling(0.1), takes=4, seed=seed):
            frames.append(len(take.codes))
    # A symbol has one frame, and then geometrically many; so has each pause.
    assert 6 < sum(frames) / len(frames) < 12, "a low temperature does not hurry"


@torch.no_grad()
def test_a_voice_may_be_vectors_of_all_layers() -> None:
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=32, layers=2, heads=2, hidden=48)
    model = AR(ARConfig(SIZE, SYMBOLS, transformer, dimension=6)).eval()
    for parameter in model.parameters():
        parameter *= 8
    prompt, voice = torch.tensor([2, 4, 1]), torch.randn(3, 6)
    ids = torch.tensor([model.prefix([3, 1], prompt)])
    scores = model(ids, voice[None])
    assert not torch.allclose(scores, model(ids))
    padded = torch.nn.functional.pad(voice, (0, 0, 0, 2))  # beside a longer voice; the text stands where it ends
    torch.testing.assert_close(model(ids, padded[None]), scores)
    first, again, other = (
        write(model, [3, 1], prompt=prompt, voice=v, seed=1)[0].codes for v in (voice, voice, -voice)
    )
    assert first == again != other
    with pytest.raises(ValueError, match="cannot be exported"):
        model.export_llama(Path("nowhere"))


@pytest.mark.parametrize(("frame_rate", "longest", "most"), [(50.0, 40, 15), (75.0, 60, 22)])
def test_limits_are_seconds_whatever_the_frame_rate(frame_rate: float, longest: int, most: int) -> None:
    sizes = TransformerConfig(dim=8, layers=1, heads=1, hidden=8)
    for timed in (True, False):
        model = AR(ARConfig(SIZE, SYMBOLS, sizes, timed, frame_rate=frame_rate)).eval()
        with torch.no_grad():
            model.head.weight.zero_()
        (take,) = write(model, [0, 1], sampling=GREEDY)  # all scores are equal: code 0 for as long as it may
        assert len(take.codes) == 2 * (longest if timed else most)
