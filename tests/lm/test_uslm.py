"""Speech from text end to end, with tiny random models: voices, sentences, seeds, and what it refuses."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from conftest import ROOT, SPEECH, make_tiny, make_tiny_uslm, run_command
from vocable import Cancelled, audio
from vocable.audio import MADE_BY_MACHINE, AudioError
from vocable.cli import evaluate
from vocable.cli.tts import tts
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError
from vocable.lm import model as lm_model
from vocable.lm.ar import AR
from vocable.lm.clarity import clarity
from vocable.lm.generated import GeneratedSpeech
from vocable.lm.nar import GUIDANCE
from vocable.lm.sampling import Sampling
from vocable.lm.speaking import Utterance, speak
from vocable.lm.synthesis import LARGEST_BATCH, LONGEST_SENTENCE, TAKES, SpeechRequest
from vocable.lm.takes import Take
from vocable.lm.uslm import USLM
from vocable.lm.voice import LEVEL

LETTERS = [*"abcdefghijklmnopqrstuvwxyz", ".", ","]


def noise(seconds: float, level: float = 0.1, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    return (level * np.random.default_rng(seed).normal(size=round(seconds * rate))).astype(np.float32)


def test_a_text_becomes_speech_and_one_seed_repeats(uslm: USLM) -> None:
    voice = uslm.prepare_voice(noise(4.0))
    first, again, other = (uslm.generate("hello, you.", voice, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.waveform, again.waveform) and not torch.equal(first.codes, other.codes)
    assert first.codes.shape[0] == 4 and first.waveform.shape == (first.codes.shape[1] * 320,)
    assert not torch.equal(uslm.generate("hello, you.", seed=1).waveform, first.waveform), "the voice tells"
    unguided = uslm.generate("hello, you.", voice, seed=1, guidance=0.0)
    assert torch.equal(unguided.codes[0], first.codes[0]) and not torch.equal(unguided.codes, first.codes)


def test_long_texts_are_spoken_by_sentences(uslm: USLM) -> None:
    text = "the first one. the second one is here. and " + "one more word " * 20
    parts = list(uslm.stream(text, seed=3))
    assert len(parts) >= 4 and " ".join(part.text for part in parts).split() == text.split()
    whole = uslm.generate(text, seed=3)
    assert whole.codes.shape[1] == sum(part.codes.shape[1] for part in parts)
    assert len(whole.waveform) == sum(len(part.waveform) for part in parts) + (len(parts) - 1) * 2400
    assert torch.equal(whole.waveform[: len(parts[0].waveform)], parts[0].waveform)
    assert [speech.text for speech in uslm.generate(["one.", "two."])] == ["one.", "two."]


def test_texts_of_a_batch_have_their_own_voices_and_options(uslm: USLM) -> None:
    voice = uslm.prepare_voice(noise(4.0))
    requests = [
        SpeechRequest("one. two three. [pause 0.2s]", voice, seed=3, takes=2),
        SpeechRequest("[pause 0.1s] four.", rate=1.5, takes=LARGEST_BATCH),
        SpeechRequest("five, six. seven. eight.", guidance=0.0, seed=7, takes=1),
    ]
    spoken: list[list[GeneratedSpeech]] = [[] for _ in requests]
    order = []
    for index, speech in uslm.speak([uslm.plan(request) for request in requests]):
        spoken[index].append(speech)
        order.append(index)
    assert order == [0, 0, 0, 1, 1, 2, 2, 2], "the second has more takes than a batch: it waits for the first"
    for request, parts in zip(requests, spoken, strict=True):
        alone = [speech for _, speech in uslm.speak([uslm.plan(request)])]
        assert [part.text for part in parts] == [part.text for part in alone]
        assert all(torch.equal(a.codes, b.codes) for a, b in zip(parts, alone, strict=True))
    order = [index for index, _ in uslm.speak([uslm.plan(requests[i]) for i in (0, 2)])]
    assert order == [0, 1, 0, 1, 0, 1], "one sentence of each at a time"


def test_pieces_that_say_nothing_are_left_out(uslm: USLM) -> None:
    assert [part.text for part in uslm.stream("... well, hello.")] == ["well, hello."]


def test_an_invented_voice_stays(uslm: USLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt of each sentence is what was spoken before it, three seconds at most."""
    prompts: list[torch.Tensor | None] = []

    def recorded(model: AR, texts: Sequence[Utterance], **options: Any) -> list[list[Take]]:
        prompts.extend(text.prompt for text in texts)
        return speak(model, texts, **options)

    monkeypatch.setattr("vocable.lm.synthesis.speak", recorded)
    first, second, _ = uslm.stream("one. two. three.", seed=3)
    assert prompts[0] is None and prompts[1] is not None and prompts[2] is not None
    assert torch.equal(prompts[1], first.codes[0, :150])
    assert torch.equal(prompts[2], torch.cat([first.codes, second.codes], 1)[0, :150])
    assert not torch.equal(second.codes, next(uslm.stream("two.", seed=4)).codes), "it has the first one's voice"


def test_the_best_take_by_a_scorer(uslm: USLM) -> None:
    heard: list[int] = []

    def longest(waveform: np.ndarray, text: str) -> float:
        heard.append(len(waveform))
        return len(waveform)

    speech = uslm.generate("abc", takes=4, scorer=longest, sampling=Sampling(1.0))
    assert len(heard) == 4 and len(speech.waveform) == max(heard)


def test_the_take_in_which_the_aligner_hears_the_text_best(uslm: USLM) -> None:
    """In RVQ-1; and without an aligner, the take that AR finds likeliest."""
    symbols = [0, 1, 2]
    [written] = speak(uslm.ar, [Utterance(symbols, takes=4, sampling=Sampling(1.0))])
    assert uslm.models.aligner
    clear, likely = [], []
    for take in written:
        frames = len(take.codes)
        vectors = uslm.codec.embed(torch.tensor([[take.codes]]), layers=slice(0, 1)).transpose(1, 2)
        sizes, texts = (torch.tensor([frames]), torch.tensor([3])), torch.tensor([symbols])
        scores = uslm.models.aligner(vectors, sizes[0])
        clear.append((not take.warnings, float(uslm.models.aligner.log_likelihood(scores, sizes[0], texts, sizes[1]))))
        likely.append((not take.warnings, take.log_likelihood / frames))
    deaf = USLM(uslm.codec, dataclasses.replace(uslm.models, aligner=None))
    for speaker, scores in ((uslm, clear), (deaf, likely)):
        speech = speaker.generate("abc", takes=4, sampling=Sampling(1.0))
        assert len(set(scores)) == 4
        assert speech.codes[0].tolist() == written[scores.index(max(scores))].codes
    assert clear.index(max(clear)) != likely.index(max(likely)), "another seed tells the two apart"


@torch.inference_mode()
def test_a_take_is_heard_alike_bit_by_bit_and_all_at_once(uslm: USLM) -> None:
    symbols = [0, 1, 2, 3, 4] * 6
    aligner, codec = uslm.models.aligner, uslm.codec
    assert aligner
    judged: list[list[float]] = []

    def hear(takes: Sequence[Take]) -> list[float]:
        judged.append(clarity(aligner, codec, symbols, takes))
        anew = clarity(aligner, codec, symbols, [dataclasses.replace(take, judge_state=None) for take in takes])
        assert anew == pytest.approx(judged[-1], abs=1e-4)
        return judged[-1]

    hear(speak(uslm.ar, [Utterance(symbols, takes=6, judge=hear, sampling=Sampling(1.0))])[0])
    assert len(judged) > 4


def test_a_text_of_ten_thousand_characters_is_spoken_by_pieces(uslm: USLM) -> None:
    for text in ("abc " * 2500, "one, two. " * 1000):
        first = next(uslm.stream(text))
        assert len(first.text) <= LONGEST_SENTENCE
    assert len(next(uslm.stream("a b. " * 5, longest=3)).text) <= 4


def test_arguments_are_checked_at_the_call(uslm: USLM) -> None:
    for options, why in (
        ({"longest": 0}, "room for at least 1 character"),
        ({"takes": 0}, "takes must be at least 1"),
        ({"guidance": -1.0}, "guidance must be 0 or more"),
        ({"guidance": float("nan")}, "guidance must be 0 or more"),
        ({"rate": 0.4}, "rate must be 0.5 to 2"),
        ({"rate": float("nan")}, "rate must be 0.5 to 2"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"voice": "voice.wav"}, "a voice is what prepare_voice returns"),
    ):
        with pytest.raises(ValueError, match=why):
            uslm.stream("abc", **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=why):
            uslm.generate(["abc", "de"], **options)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="nothing to say"):
        uslm.generate(["abc", "..."])


def test_words_are_timed(uslm: USLM) -> None:
    """By the frames that AR wrote for their symbols, from the first to the last that is no mark."""
    speech = uslm.generate('"One," — two  tens.', seed=2)
    assert speech.words and speech.symbols
    assert [word.text for word in speech.words] == ['"One,"', "two", "tens."]
    assert "".join(symbol.text for symbol in speech.symbols) == "one,twotens."
    seconds = len(speech.waveform) / speech.sample_rate
    for parts in (speech.words, speech.symbols):
        times = [time for part in parts for time in (part.start, part.end)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= seconds
        assert all(part.end - part.start >= 0.0199 for part in parts)
    spans = {word.text: (word.start, word.end) for word in speech.words}
    first, last = speech.symbols[4], speech.symbols[6]
    assert spans["two"] == (first.start, last.end) and spans["tens."][1] == speech.symbols[-2].end


def test_words_of_joined_sentences(uslm: USLM) -> None:
    text = "one. two! [pause 0.5s] three."
    parts, whole = list(uslm.stream(text)), uslm.generate(text)
    assert [part.text for part in parts] == ["one.", "two!", "", "three."]
    assert [part.is_pause for part in parts] == [False, False, True, False]
    assert whole.words and [word.text for word in whole.words] == ["one.", "two!", "three."]
    lengths = [len(part.waveform) for part in parts]
    assert lengths[2] == 8000 and len(whole.waveform) == sum(lengths) + 2400
    starts = [0, lengths[0] + 2400, sum(lengths[:3]) + 2400]
    for word, start, part in zip(whole.words, starts, (parts[0], parts[1], parts[3]), strict=True):
        assert part.words and word.start == pytest.approx(part.words[0].start + start / 16_000)
        assert torch.equal(whole.waveform[start : start + len(part.waveform)], part.waveform)
    assert not whole.waveform[starts[2] - 8000 : starts[2]].any()


def test_pauses_at_the_ends_and_pauses_alone(uslm: USLM) -> None:
    speech = uslm.generate("[pause 1s] abc [pause 2s]", seed=1)
    alone = uslm.generate("abc", seed=1)
    assert torch.equal(speech.codes, alone.codes) and len(speech.waveform) == len(alone.waveform) + 3 * 16_000
    assert torch.equal(speech.waveform[16_000:-32_000], alone.waveform)
    with pytest.raises(ValueError, match="nothing to say"):
        uslm.generate("[pause 1s]")


def make_untimed() -> USLM:
    uslm = make_tiny_uslm(timed=False)
    with torch.no_grad():
        uslm.ar.head.weight[uslm.ar.end_id] = 0  # so that speech does not end at once
    return uslm


def test_without_timings_the_aligner_times_the_words(uslm: USLM) -> None:
    untimed = make_untimed()
    speech = untimed.generate("one two. six.", seed=1)
    assert untimed.has_timings and speech.words and [w.text for w in speech.words] == ["one", "two.", "six."]
    deaf = USLM(untimed.codec, dataclasses.replace(untimed.models, aligner=None))
    assert not deaf.has_timings
    same = deaf.generate("one two. six.", seed=1)
    assert same.words is None and same.symbols is None


@pytest.mark.parametrize("timed", [True, False])
def test_the_rate_divides_durations(timed: bool, uslm: USLM) -> None:
    speaker = uslm if timed else make_untimed()
    text, options = "a few words that last", {"takes": 1, "sampling": Sampling(1.0), "seed": 1}
    usual = speaker.generate(text, **options)  # type: ignore[call-overload]
    for rate in (0.5, 0.8, 1.25, 2.0):
        speech = speaker.generate(text, rate=rate, **options)  # type: ignore[call-overload]
        ratio = usual.codes.shape[1] / speech.codes.shape[1]
        assert ratio == pytest.approx(rate, rel=0.02) if rate < 1 or not timed else 1 < ratio <= rate * 1.02
        assert usual.words and speech.words and len(speech.words) == 5
        if rate < 1:
            for one, other in zip(usual.words, speech.words, strict=True):
                assert not timed or other.start == pytest.approx(one.start / rate, abs=0.03)


def test_pronunciations_need_phonemes(uslm: USLM) -> None:
    for call in (
        lambda: uslm.generate("[abc](/a/)"),
        lambda: uslm.generate("abc", lexicon={"abc": "a"}),
    ):
        with pytest.raises(ValueError, match="these models read characters, and pronunciations need models that read"):
            call()


def test_another_thread_cancels_between_two_steps(uslm: USLM) -> None:
    """The call ends before the text does, and the models then speak as before."""
    event, steps = threading.Event(), threading.Semaphore(0)

    def cancelled() -> bool:
        steps.release()
        return event.is_set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(uslm.generate, "abc " * 10_000, takes=1, cancelled=cancelled)
        assert all(steps.acquire(timeout=60) for _ in range(3))
        event.set()
        with pytest.raises(Cancelled, match="cancelled"):
            running.result(timeout=60)
    sentences = uslm.stream("a. b.", cancelled=event.is_set)
    with pytest.raises(Cancelled):
        next(sentences)
    event.clear()
    speech = uslm.generate("abc", takes=1, cancelled=event.is_set)
    assert torch.equal(speech.codes, uslm.generate("abc", takes=1).codes)


def test_cancelling_between_the_layers_of_nar(uslm: USLM) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        uslm.nar.fill(torch.zeros(20, dtype=torch.int64), cancelled=lambda: next(answers))


def test_another_language_is_warned_of_once_a_call(uslm: USLM) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        uslm.generate(["a. b.", "c."], language="de", takes=1)
        assert [str(w.message) for w in caught] == [
            "the models were trained on language 'en', and the text is in 'de': words may be lost or mispronounced"
        ]
        uslm.generate("a.", language="en-GB", takes=1)
        assert len(caught) == 1


def test_a_voice_can_be_kept(uslm: USLM, tmp_path: Path) -> None:
    voice = uslm.prepare_voice(noise(4.0))
    assert int(voice.num_frames) == 150
    voice.save(tmp_path / "voice.safetensors")
    kept = Encoded.load(tmp_path / "voice.safetensors")
    assert torch.equal(uslm.generate("abc", kept).waveform, uslm.generate("abc", voice).waveform)
    assert int(uslm.prepare_voice(noise(2.0, rate=44_100), sample_rate=44_100).num_frames) == 100


def disturbances() -> dict[str, np.ndarray]:
    """What a recording may hold before its speech, louder than that."""
    t = np.arange(64_000) / 16_000
    beats = np.concatenate([np.exp(-np.arange(4000) / 800) * noise(0.25, 0.6, seed) for seed in range(16)])
    click = np.zeros(48_000)
    click[16_000:16_040] = 1.0
    chords = [
        sum(np.sin(2 * np.pi * k * f * t[:8000]) / k for k in range(1, 6) for f in c) for c in ((220, 277), (247, 330))
    ]
    return {
        "a beep": 0.7 * np.sin(2 * np.pi * 1000 * t[:48_000]),
        "a click": click,
        "a hum": 0.5 * np.sin(2 * np.pi * 50 * t) + 0.3 * np.sin(2 * np.pi * 150 * t),
        "noise": noise(4.0, 0.3),
        "chords": 0.15 * np.tile(np.concatenate(chords), 4),
        "drums": beats,
        "silence": np.zeros(48_000),
    }


@pytest.mark.parametrize("what", disturbances())
def test_a_voice_is_where_speech_is(what: str, uslm: USLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the recording is loudest; whatever its level; and clean speech is not warned of."""
    encoded: list[np.ndarray] = []

    def encode(waveform: np.ndarray, sample_rate: int | None = None) -> Encoded:
        encoded.append(waveform)
        return SpeechTokenizer.encode(uslm.codec, waveform, sample_rate=sample_rate)

    monkeypatch.setattr(uslm.codec, "encode", encode)
    speech, rate = audio.read(SPEECH, 16_000)
    speech = speech[: 4 * rate]
    before = disturbances()[what].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gain in (1.0, 0.01):
            uslm.prepare_voice(gain * np.concatenate([before, speech]))
    for chosen in encoded:
        assert len(chosen) == 3 * rate and np.sqrt(np.mean(chosen**2)) == pytest.approx(LEVEL, rel=0.01)
        part = chosen[rate // 2 : rate]
        place = int(np.correlate(speech, part, "valid").argmax())
        assert np.corrcoef(speech[place : place + len(part)], part)[0, 1] > 0.999


def test_recordings_that_are_doubtful_are_warned_of(uslm: USLM) -> None:
    speech, rate = audio.read(SPEECH, 16_000)
    with pytest.warns(UserWarning, match="noisy"):
        uslm.prepare_voice(speech + noise(len(speech) / rate, float(np.std(speech)) * 10 ** (-5 / 20)))
    for what in ("a beep", "a click", "noise", "a hum"):
        with pytest.warns(UserWarning, match="hardly sounds like speech"):
            uslm.prepare_voice(disturbances()[what].astype(np.float32))


def test_recordings_that_are_no_voice(uslm: USLM) -> None:
    with pytest.raises(AudioError, match=r"lasts 0.2 s: a voice needs a second"):
        uslm.prepare_voice(noise(0.2))
    with pytest.raises(AudioError, match="silent"):
        uslm.prepare_voice(noise(3.0, 1e-5))
    with pytest.raises(AudioError, match="one recording, not 2"):
        uslm.prepare_voice([noise(2.0), noise(2.0)])
    other = make_tiny(5, num_quantizers=4)
    with pytest.raises(TokensError, match="a voice of tokens-"):
        uslm.generate("abc", other.encode(noise(2.0)))
    with pytest.raises(TokensError, match="all layers"):
        uslm.generate("abc", uslm.codec.encode(noise(2.0), layers=slice(0, 1)))
    for seconds in (0.5, 4.0):
        with pytest.raises(TokensError, match=f"1 to 3 s, this one {seconds}: use prepare_voice"):
            uslm.generate("abc", uslm.codec.encode(noise(seconds)))


def test_what_is_no_voice(uslm: USLM) -> None:
    voice = uslm.prepare_voice(noise(2.0))
    for wrong in ("voice.wav", noise(2.0)):
        with pytest.raises(TokensError, match="a voice is what prepare_voice returns"):
            uslm.generate("abc", wrong)  # type: ignore[arg-type]
    for codes, why in (
        (torch.full_like(voice.codes, 60_000), "codes must be 0 to 31"),
        (voice.codes - 40, "codes must be 0 to 31"),
        (voice.codes.float() * torch.nan, "integers"),
        (voice.codes[:, :, :60], "each of its 100 frames"),
    ):
        with pytest.raises(TokensError, match=why):
            uslm.generate("abc", dataclasses.replace(voice, codes=codes))


def test_eight_threads_speak_what_one_does(uslm: USLM) -> None:
    texts = [f"the {word} one." for word in ("first", "other", "last", "best")]
    voices = [None, uslm.prepare_voice(noise(2.0))]
    wanted = [uslm.generate(texts[i % 4], voices[i // 4], takes=1, seed=i).codes for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda i: uslm.generate(texts[i % 4], voices[i // 4], takes=1, seed=i).codes, range(8))
        assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))


def test_markup_alone_is_passed_over(uslm: USLM) -> None:
    assert [part.text for part in uslm.stream("one.\n\n<hr/>\n\ntwo.")] == ["one.", "two."]


@pytest.mark.parametrize("text", ["", "   ", "...!?", "\n", "<br/>"])
def test_texts_that_say_nothing(text: str, uslm: USLM) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        uslm.generate(text)


def test_symbols_and_languages_that_are_not_known(uslm: USLM) -> None:
    with pytest.warns(UserWarning, match="no symbol similar to 'ж': left out"):
        uslm.generate("a. one café ж. b.")
    with pytest.raises(ValueError, match=r"'ж ж': .*no symbol similar to 'ж'"):
        uslm.generate("ж ж")
    with pytest.raises(ValueError, match="xx"):
        uslm.generate("abc 12", language="xx")


def test_it_loads_what_training_leaves(uslm: USLM, uslm_folders: tuple[Path, Path]) -> None:
    models, codec = uslm_folders
    loaded = USLM.from_pretrained(models, codec=codec)
    assert torch.equal(loaded.generate("abc").waveform, uslm.generate("abc").waveform)
    with pytest.raises(ValueError, match="models of tokens-"):
        USLM.from_pretrained(models)
    with pytest.raises(ValueError, match="no language models"):
        USLM.from_pretrained(codec, codec=codec)


def test_options_of_the_download_reach_the_hub(
    uslm_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, codec = uslm_folders
    asked: list[dict[str, Any]] = []

    def download(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        return str(models)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    options = {"revision": "v1", "cache_dir": "cache", "local_files_only": True}
    USLM.from_pretrained("owner/name", codec=codec, **options)  # type: ignore[arg-type]
    assert asked[0]["repository"] == "owner/name" and options.items() <= asked[0].items()


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda c: c["ar"]["transformer"].update(layers=10**6), "holds 1 layers, where the config has 1000000"),
        (lambda c: c["nar"]["transformer"].update(layers=10**6), "holds 1 layers"),
        (
            lambda c: c["ar"]["transformer"].update(layers=10**9),
            "transformer.layers must be 1 to 1048576, not 1000000000",
        ),
        (lambda c: c["ar"]["transformer"].update(dim=16.5), "transformer.dim: 16.5 is not a whole number"),
        (lambda c: c["ar"]["transformer"].update(rope_theta={}), "transformer.rope_theta: {} is not a number"),
        (lambda c: c["ar"]["transformer"].update(rope_theta=0), "transformer.rope_theta must be more than 0, not 0"),
        (lambda c: c["ar"].update(transformer=[]), r"transformer: a mapping is expected, not \[\]"),
        (lambda c: c["ar"].update(timed=1), "timed: 1 is not true or false"),
        (lambda c: c["nar"].update(frame_rate=1e9), "the codec has 50.0"),
        (lambda c: c["ar"]["transformer"].update(dim=10**6, hidden=10**6), "size mismatch"),
        (lambda c: c["aligner"].update(hidden=10**6), "size mismatch"),
        (lambda c: c["nar"].update(codebook_size=10**5), "its NAR is for codebooks"),
        (lambda c: c.update(symbols=[5]), "hold strings"),
        (lambda c: c.update(symbols=["a"]), "its ar is not for the 1 symbols"),
        (lambda c: c.update(front_end="x"), "front_end"),
    ],
)
def test_a_config_that_claims_too_much_is_refused_before_memory_is_taken(
    change: Callable[[dict[str, Any]], None], why: str, uslm_folders: tuple[Path, Path], uslm: USLM, tmp_path: Path
) -> None:
    shutil.copytree(uslm_folders[0], tmp_path / "lm")
    config = json.loads((tmp_path / "lm" / "config.json").read_text())
    change(config)
    (tmp_path / "lm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"(?s)no language models that can be used here .*{why}"):
        lm_model.load_models(tmp_path / "lm", uslm.codec)
    (tmp_path / "lm" / "config.json").write_text(100_000 * "[")
    with pytest.raises(ValueError, match="no language models"):
        lm_model.load_models(tmp_path / "lm", uslm.codec)


def test_loading_and_speaking_leave_weights_and_torchs_generator_as_they_were(
    uslm_folders: tuple[Path, Path], uslm: USLM
) -> None:
    state = torch.get_rng_state()
    models = lm_model.load_models(uslm_folders[0], uslm.codec)
    assert torch.equal(torch.get_rng_state(), state)
    assert models.ar is not None
    strides = [parameter.stride() for parameter in models.ar.parameters()]
    USLM(uslm.codec, models).generate("a.", takes=1)
    assert [parameter.stride() for parameter in models.ar.parameters()] == strides
    assert torch.equal(torch.get_rng_state(), state)


def test_the_command(
    uslm: USLM, uslm_folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, codec = uslm_folders
    soundfile.write(tmp_path / "voice.wav", noise(4.0), 16_000)
    call = ["tts", "--models", models, "-m", codec, "--seed", 3]
    assert run_command(*call, "one. two.", "--prompt", tmp_path / "voice.wav", "-o", tmp_path / "a.wav") == 0
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        assert file.comment == MADE_BY_MACHINE and file.samplerate == 16_000
    keep = ["--prompt", tmp_path / "voice.wav", "--save-voice", tmp_path / "voice.safetensors"]
    assert run_command(*call, "one. two.", *keep, "-o", tmp_path / "b.flac") == 0
    (tmp_path / "text.txt").write_text("one. two.")
    kept = ["--file", tmp_path / "text.txt", "--voice", tmp_path / "voice.safetensors"]
    assert run_command(*call, *kept, "-o", tmp_path / "c.wav") == 0
    assert capsys.readouterr().err.count("s by tiny-") == 3
    a, b, c = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.flac", "c.wav"))
    assert np.array_equal(a, c) and np.allclose(a, b, atol=2e-4)  # the formats round differently
    for bad, why in (
        ([""], "nothing to say"),
        ([], "give the text, or --file"),
        (["a", "--voice", tmp_path / "voice.wav"], "a token file ends in"),
        (["a", "--prompt", tmp_path / "none.wav"], "none.wav"),
        (["a", "--temperature", -1], "temperature"),
        (["a", "--temperature", "nan"], "temperature"),
        (["a", "--temperature", "1e-40"], "temperature"),
        (["a", "--top-p", "nan"], "top_p"),
        (["a", "--guidance", "nan"], "guidance"),
    ):
        assert run_command(*call, *bad, "-o", tmp_path / "no.wav") == 2
        assert why in capsys.readouterr().err and not (tmp_path / "no.wav").exists()


def test_the_command_writes_times_of_words(
    uslm_folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, codec = uslm_folders
    call = [
        "tts",
        "--models",
        models,
        "-m",
        codec,
        "--takes",
        1,
        "one two. [pause 1s] three.",
        "-o",
        tmp_path / "a.wav",
    ]
    for suffix in ("srt", "vtt", "json", "TextGrid"):
        assert run_command(*call, "--timings", tmp_path / f"a.{suffix}") == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert [word["text"] for word in content["words"]] == ["one", "two.", "three."]
    assert content["duration"] == pytest.approx(soundfile.info(tmp_path / "a.wav").duration, abs=1e-3)
    assert content["words"][2]["start"] - content["words"][1]["end"] >= 1
    assert run_command(*call, "--rate", 0.5, "--timings", tmp_path / "b.json") == 0
    slow = json.loads((tmp_path / "b.json").read_text())
    assert slow["duration"] - 1 == pytest.approx(2 * (content["duration"] - 1), rel=0.05)
    (tmp_path / "words.txt").write_text("one\tж\n", encoding="utf-8")
    capsys.readouterr()
    for bad, why in (
        (["--timings", tmp_path / "a.txt"], "a.txt: name the file of timings .srt, .vtt, .json or .TextGrid"),
        (["--timings", tmp_path / "words.json", "--lexicon", tmp_path / "words.json"], "is an input or the output"),
        (["--rate", 3], "rate must be 0.5 to 2"),
        (["--lexicon", tmp_path / "words.txt"], "words.txt, line 1: 'ж' in /ж/ is not a phone of IPA"),
        (["--lexicon", tmp_path / "none.txt"], "none.txt: No such file"),
    ):
        assert run_command(*call, *bad) == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1


def test_the_shipped_models_are_found(
    uslm_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, codec = uslm_folders
    monkeypatch.setattr(lm_model, "__file__", str(tmp_path / "src" / "vocable" / "lm" / "model.py"))
    with pytest.raises(ValueError, match=r"pip install \./models/uslm"):
        USLM.from_pretrained(codec=codec)
    # A clone has them in a folder, ...
    shutil.copytree(models, tmp_path / "models" / "uslm")
    assert (
        USLM.from_pretrained(codec=codec).models.token_id == USLM.from_pretrained(models, codec=codec).models.token_id
    )
    # ... and an installed package comes first.
    package = tmp_path / "site" / "vocable_uslm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ValueError, match="vocable_uslm: no language models that can be used"):
        USLM.from_pretrained(codec=codec)


def test_models_of_0_1_speak_with_the_codec_that_they_name(fast: SpeechTokenizer) -> None:
    assert lm_model.load_models(ROOT / "models" / "uslm", fast).token_id == fast.id != fast.token_id
    with pytest.raises(ValueError, match="models of fast-6723fc78d7, but those of this codec are"):
        lm_model.load_models(ROOT / "models" / "uslm", make_tiny())


def test_commands_have_the_models_own_defaults() -> None:
    for command in (tts, evaluate.tts):
        assert inspect.signature(command).parameters["takes"].default.default == TAKES
    assert inspect.signature(tts).parameters["guidance"].default.default == GUIDANCE
