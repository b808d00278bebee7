"""The autoregressive model: its sequence, what it may say when, and that it says what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
import torch

from vocable.lm.aligner import PAUSE, Timing
from vocable.lm.ar import AR, ARConfig, Spoken
from vocable.lm.sampling import Sampling
from vocable.lm.transformer import IGNORED, TransformerConfig, cross_entropy

SIZE, SYMBOLS = 12, 6
GREEDY = Sampling(temperature=0.0)

LONGEST_SYMBOL, MOST_FRAMES = 40, 15  # at 50 frames a second


def make(timed: bool = True, seed: int = 0, look_ahead: bool = False) -> AR:
    torch.manual_seed(seed)
    transformer = TransformerConfig(dim=32, layers=2, heads=2, hidden=48)
    return AR(ARConfig(SIZE, SYMBOLS, transformer, timed, look_ahead)).eval()


def test_the_sequence_of_a_clip() -> None:
    model = make()
    timing = Timing([PAUSE, 3, 1], [1, 2, 1])
    inputs, targets = model.example([3, 1], torch.tensor([7, 8, 9, 5]), timing, torch.tensor([2, 4]))
    symbol = model.first_symbol
    speech = [model.pause, 7, symbol + 3, 8, 9, symbol + 1, 5]
    before = [model.prompt, 2, 4, model.text, symbol + 3, symbol + 1, model.speech]
    assert inputs.tolist() == before + speech
    assert targets.tolist() == [IGNORED] * 6 + [*speech, model.end]
    ahead = make(look_ahead=True)
    inputs, targets = ahead.example([3, 1], torch.tensor([7, 8, 9, 5]), timing, None)
    speech = [model.pause, symbol + 3, 7, symbol + 3, symbol + 1, 8, 9, symbol + 1, model.end, 5]
    assert inputs.tolist()[4:] == speech
    assert targets.tolist()[3:] == [IGNORED if i in (1, 4, 8) else id for i, id in enumerate(speech)] + [model.end]
    plain, learned = make(timed=False).example([3, 1], torch.tensor([7, 8]), None, None)
    assert plain.tolist() == [model.text, symbol + 3, symbol + 1, model.speech, 7, 8]
    assert learned.tolist()[-3:] == [7, 8, model.end]


@pytest.mark.parametrize("look_ahead", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_timed_model_says_every_symbol_once_and_ends(seed: int, look_ahead: bool) -> None:
    """Whatever its weights: random ones here."""
    symbols = torch.randint(SYMBOLS, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
    for take in make(True, seed, look_ahead).speak(symbols, sampling=Sampling(1.0, top_p=1.0), takes=3, seed=seed):
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
    (take,) = model.speak(symbols, prompt, sampling=Sampling(1.0, top_p=1.0, repeats=0), seed=3)
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
    first, again = (model.speak(symbols, takes=3, seed=5, sampling=Sampling(1.0)) for _ in range(2))
    assert [take.codes for take in first] == [take.codes for take in again]
    assert first[0].codes != first[1].codes


@torch.no_grad()
def test_a_judge_lets_the_better_takes_go_on() -> None:
    """This one likes low codes, and has to be told how far in the text each take is."""
    model, symbols = make(seed=1), [0, 1, 2, 3, 4] * 6

    def low(takes: Sequence[Spoken]) -> list[float]:
        for take in takes:  # the last symbol may still be spoken, and then counts for nothing
            begun = len([s for s, _ in groupby(take.symbols) if s != PAUSE])
            ended = len([s for s, _ in groupby(take.symbols[: take.until]) if s != PAUSE])
            assert take.said == ended and begun - take.said in (0, 1)
        return [-sum(take.codes) / len(take.codes) for take in takes]

    alone, judged = (model.speak(symbols, sampling=Sampling(1.0), takes=8, judge=j, seed=3) for j in (None, low))
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
        (take,) = model.speak(symbols, sampling=Sampling(temperature=0.0, longest_pause=60))
        assert take.codes == codes.tolist() and take.symbols == timing.by_frame() and not take.warnings


def test_what_goes_wrong_is_named() -> None:
    untimed = make(timed=False)
    with torch.no_grad():
        untimed.head.weight.zero_()
    (take,) = untimed.speak([0] * 6, sampling=GREEDY)  # all scores are equal: code 0, for ever
    assert len(take.codes) == MOST_FRAMES * 6
    assert take.warnings == ["a loop from frame 1 on", "did not come to an end"]
    timed = make()
    with torch.no_grad():
        timed.head.weight.zero_()
    (take,) = timed.speak([0, 1], sampling=GREEDY)
    assert len(take.codes) == 2 * LONGEST_SYMBOL and len(take.warnings) == 2
    assert take.warnings[0] == "symbol 1 of 2 was held for too long"
    (take,) = timed.speak([0] * 40, sampling=GREEDY)  # the first 20 take all the time that there is
    most = MOST_FRAMES * 40 + 2 * GREEDY.longest_pause
    assert take.warnings[-1] == "did not come to an end" and take.said == 40
    assert len(take.codes) == most + 40 - most // LONGEST_SYMBOL
    with pytest.raises(ValueError, match="nothing to say"):
        timed.speak([])
    for wrong in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"longest_pause": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_transformers_takes_it_from_here(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="comes with vocable[train]")
    model = make()
    model.export_llama(tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(model.vocabulary, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, model(ids), atol=1e-5, rtol=0)


def test_staying_is_one_choice_however_many_codes_share_it() -> None:
    """All tokens equally likely: 12 codes against 6 symbols, END and a pause, so speech stays 12 times in 20."""
    model = make()
    with torch.no_grad():
        model.head.weight.zero_()
    frames = []
    for seed in range(60):
        for take in model.speak([0, 1, 2], sampling=Sampling(0.1), takes=4, seed=seed):
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
    ids = torch.tensor([model.before_speech([3, 1], prompt)])
    scores = model(ids, voice[None])
    assert not torch.allclose(scores, model(ids))
    padded = torch.nn.functional.pad(voice, (0, 0, 0, 2))  # beside a longer voice; the text stands where it ends
    torch.testing.assert_close(model(ids, padded[None]), scores)
    first, again, other = (model.speak([3, 1], prompt, v, seed=1)[0].codes for v in (voice, voice, -voice))
    assert first == again != other
    with pytest.raises(ValueError, match="cannot be exported"):
        model.export_llama(Path("nowhere"))


def test_limits_are_seconds_whatever_the_frame_rate() -> None:
    sizes = TransformerConfig(dim=8, layers=1, heads=1, hidden=8)
    limits = [
        (ar.longest_symbol, ar.fewest, ar.most, ar.loop)
        for ar in (AR(ARConfig(10, 4, sizes, frame_rate=rate)) for rate in (50.0, 75.0))
    ]
    assert limits == [(40, 2, 15, 50), (60, 3, 22, 75)]
