"""Metrics against closed forms, and against direct calls of what they wrap."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import SPEECH
from vocable import audio
from vocable.evaluation.metrics import METRICS, Judges, NoAnswer, Pair, load_metric, words
from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, language_code, register, remember
from vocable.evaluation.metrics.words import CER, WER, Recogniser, normalizer

JUDGES = Judges(Path("nowhere"))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return audio.read(SPEECH, SAMPLE_RATE)[0][: 4 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def worse(speech: np.ndarray) -> np.ndarray:
    return (speech + np.random.default_rng(0).normal(0, 0.02, len(speech))).astype(np.float32)


def metric(name: str, *modules: str) -> Metric:
    """Load a metric; skip the test if one of `modules`, which the extra `dev` does not have, is missing."""
    for module in modules:
        pytest.importorskip(module, reason="comes with vocable[eval]")
    return METRICS[name](JUDGES)


def value(metric: Metric, pair: Pair) -> float:
    total, count = metric(pair)
    return total / count


def no_answer(metric: Metric, pair: Pair) -> str:
    """Return the reason why the metric cannot judge the pair."""
    with pytest.raises(NoAnswer) as caught:
        metric(pair)
    return str(caught.value)


def test_every_metric_is_described() -> None:
    for name, kind in METRICS.items():
        assert kind.name == name and kind.label and kind.licence
        assert kind.bounds[0] < kind.bounds[1]
        assert kind.__doc__


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="two metrics are named 'mel'"):
        register(type("Other", (METRICS["mel"],), {}))


def test_the_last_results_are_remembered() -> None:
    class Sum:
        calls = 0

        @remember(2)
        def __call__(self, waveform: np.ndarray, scale: int = 1) -> float:
            self.calls += 1
            return float(waveform.sum()) * scale

    total, waveforms = Sum(), [np.full(3, float(i)) for i in range(3)]
    assert [total(waveforms[i]) for i in (0, 1, 0, 2, 0)] == [0, 3, 0, 6, 0] and total.calls == 3
    assert total(waveforms[1]) == 3 and total.calls == 4, "the one that was used least recently is gone"
    assert total(waveforms[1], 2) == 6 and Sum()(waveforms[1]) == 3


def test_mel_distance_of_another_level(speech: np.ndarray) -> None:
    loud = np.random.default_rng(0).normal(0, 0.3, SAMPLE_RATE).astype(np.float32)
    found = metric("mel")
    assert value(found, Pair(loud, loud)) == 0.0
    # Far above the floor, a factor is its logarithm.
    assert value(found, Pair(loud, loud / 2)) == pytest.approx(math.log(2), abs=0.01)
    assert 0 < value(found, Pair(speech, speech / 2)) < math.log(2)


def test_stft_distance_of_silence_and_of_itself(speech: np.ndarray) -> None:
    found = metric("stft")
    assert value(found, Pair(speech, speech)) == 0.0
    assert "silent" in no_answer(found, Pair(np.zeros_like(speech), speech))
    # Everything is lost: the convergence is 1, and the logarithms differ by those of the speech.
    assert value(found, Pair(speech, np.zeros_like(speech))) > 1.0


def test_si_sdr_is_the_ratio_that_was_mixed() -> None:
    found = metric("si-sdr")
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone, other = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (200, 300))
    for decibels in (-10, 0, 25):
        mixed = tone + other * 10 ** (-decibels / 20)
        assert value(found, Pair(tone, mixed.astype(np.float32))) == pytest.approx(decibels, abs=0.01)
        assert value(found, Pair(tone, (0.1 * mixed).astype(np.float32))) == pytest.approx(decibels, abs=0.01)
    assert "silent" in no_answer(found, Pair(tone, np.zeros_like(tone)))


def test_stripes_of_noise_and_of_noise_that_repeats() -> None:
    found = metric("stripes")
    noise, other = np.diff(np.random.default_rng(0).normal(0, 0.1, (2, 4 * SAMPLE_RATE + 1))).astype(np.float32)
    for plain in (noise, other):
        assert value(found, Pair(noise, plain)) == pytest.approx(0.0, abs=0.01)
    repeated = np.tile(noise[:160], 400)  # every 10 ms the same: tones at multiples of 100 Hz
    turned = np.tile(np.concatenate([noise[:160], -noise[:160]]), 200)  # and midway between these
    for tones in (repeated, turned):
        assert value(found, Pair(noise, tones)) > 0.75
        # Half of the power repeats; so its correlation is a half, less what the window takes.
        assert value(found, Pair(noise, tones + other)) == pytest.approx(0.2, abs=0.1)
    assert found(Pair(noise, repeated))[1] == (4 * SAMPLE_RATE - 1280) // 320 + 1, "every window counts"
    hum = np.cumsum(np.cumsum(noise)).astype(np.float32)
    assert "unvoiced" in no_answer(found, Pair(hum, repeated))


@pytest.mark.slow  # librosa compiles its pitch tracker first
def test_pitch_of_tones() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE

    def glide(low: float, high: float) -> np.ndarray:
        phase = 2 * np.pi * np.cumsum(np.linspace(low, high, len(time))) / SAMPLE_RATE
        return sum(np.sin(h * phase) / h for h in range(1, 8)).astype(np.float32) * 0.1

    up, down = glide(120, 220), glide(220, 120)
    assert value(metric("f0"), Pair(up, up)) == pytest.approx(1.0)
    assert value(metric("f0"), Pair(up, glide(150, 275))) > 0.99  # a fifth higher, the same tune
    assert value(metric("f0"), Pair(up, down)) < -0.95
    noise = np.random.default_rng(0).normal(0, 0.1, len(up)).astype(np.float32)
    assert value(metric("voicing"), Pair(up, up)) == 0.0
    assert value(metric("voicing"), Pair(up, noise)) > 0.8
    assert "voiced" in no_answer(metric("f0"), Pair(up, np.zeros_like(up)))


def test_pesq_is_the_library_s(speech: np.ndarray, worse: np.ndarray) -> None:
    wide, narrow = metric("pesq"), metric("pesq-nb")
    from pesq import pesq

    assert value(wide, Pair(speech, worse)) == pesq(SAMPLE_RATE, speech, worse, "wb")
    halves = [audio.resample(w, SAMPLE_RATE, 8000) for w in (speech, worse)]
    assert value(narrow, Pair(speech, worse)) == pesq(8000, *halves, "nb")
    silence = np.zeros_like(speech)
    assert "no speech" in no_answer(wide, Pair(silence, worse)) and "silent" in no_answer(wide, Pair(speech, silence))


def test_stoi_is_the_library_s(speech: np.ndarray, worse: np.ndarray) -> None:
    plain, extended = metric("stoi"), metric("estoi")
    from pystoi import stoi

    assert value(plain, Pair(speech, worse)) == pytest.approx(stoi(speech, worse, SAMPLE_RATE))
    assert value(extended, Pair(speech, worse)) == pytest.approx(stoi(speech, worse, SAMPLE_RATE, extended=True))
    for samples in (1, 500, 2000):  # too short for it, the first two for its frames
        assert "too little" in no_answer(plain, Pair(speech[:samples], worse[:samples]))


def test_visqol_is_the_library_s(speech: np.ndarray, worse: np.ndarray) -> None:
    found = metric("visqol", "visqol")
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech")
    direct = api.measure_from_arrays(speech.astype(float), worse.astype(float), SAMPLE_RATE).moslqo
    assert value(found, Pair(speech, worse)) == pytest.approx(direct)
    assert "mapper" in found.made_with()["visqol mode"]
    for samples in (10, 5000):
        assert "too short" in no_answer(found, Pair(worse[:samples], worse[:samples]))
    assert "silent" in no_answer(found, Pair(speech, np.zeros_like(speech)))


def test_speaker_cosine_is_the_library_s(speech: np.ndarray, worse: np.ndarray) -> None:
    found = metric("speaker", "resemblyzer")
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)
    a, b = (encoder.embed_utterance(preprocess_wav(w)) for w in (speech, worse))
    assert value(found, Pair(speech, worse)) == pytest.approx(float(a @ b), abs=1e-5)
    assert value(found, Pair(speech, worse, voice=worse)) == pytest.approx(1.0, abs=1e-5)
    assert "too little speech" in no_answer(found, Pair(speech, np.zeros_like(speech)))


def test_loading_distillmos_hides_no_module() -> None:
    """transformers reads torchaudio's `__spec__`, which an empty module does not have."""
    if importlib.util.find_spec("distillmos") is None:
        pytest.skip("comes with vocable[eval]")
    METRICS["mos"](Judges())
    assert getattr(sys.modules.get("torchaudio"), "__spec__", True)


def test_wavlm_cosine_of_a_random_model(tmp_path: Path, speech: np.ndarray, worse: np.ndarray) -> None:
    import transformers

    config = transformers.WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(32,) * 5,
        xvector_output_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.WavLMForXVector(config).eval()
    model.save_pretrained(tmp_path)
    found = METRICS["speaker-wavlm"](Judges(wavlm=str(tmp_path)))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    inputs = [extractor(w, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values for w in (speech, worse)]
    with torch.inference_mode():
        a, b = (model(x).embeddings for x in inputs)
    expected = float(torch.nn.functional.cosine_similarity(a, b))
    assert value(found, Pair(speech, worse)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="weights not available"):
        METRICS["speaker-wavlm"](Judges(wavlm=str(tmp_path / "none")))


def test_utmos_from_a_folder(tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "hubconf.py").write_text(
        "def utmos22_strong(**options):\n    return lambda waves, rate: waves.abs().mean(1) + rate\n"
    )
    found = METRICS["utmos"](Judges(utmos=str(tmp_path)))
    assert value(found, Pair(speech, speech)) == pytest.approx(np.abs(speech).mean() + SAMPLE_RATE, rel=1e-5)


def test_utmos_runs_no_code_of_a_repository_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(repository: str, *_: object, **options: object) -> object:
        asked.append(repository)
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load", load)
    with pytest.raises(ValueError, match="--trust-utmos"):
        METRICS["utmos"](Judges())
    assert not asked
    with pytest.raises(ValueError, match="no network"):
        METRICS["utmos"](Judges(trust_utmos=True))
    assert re.fullmatch(r"tarepan/SpeechMOS:[0-9a-f]{40}", asked[0])  # a tag can be moved, a commit cannot


def test_words_and_characters() -> None:
    import jiwer

    def edits(kind: type[WER], said: str, heard: str) -> tuple[float, float] | None:
        found = object.__new__(kind)  # without its recogniser
        found._jiwer = jiwer
        return found.edits(said, heard)

    assert edits(WER, "the cat sat", "the cat sat") == (0, 3)
    assert edits(WER, "the cat sat", "a cat sat down") == (2, 3)
    assert edits(WER, "the cat sat", "") == (3, 3)
    assert edits(CER, "你好 世界", "你好世") == (1, 4)
    assert edits(CER, "cafe\u0301", "caf\u00e9") == (0, 4)


def test_normalizers() -> None:
    for english in ("en", "en-US", "EN_gb"):
        assert normalizer(english)("Mr. Colour's TWO cats!").split() == ["mister", "color", "is", "2", "cats"]
    assert normalizer("de")("Zwei Katzen, bitte!").split() == ["zwei", "katzen", "bitte"]


class ConstantRecogniser(Recogniser):
    """A recogniser whose transcript is always the same, and which knows two languages."""

    def __init__(self, words: str = "") -> None:
        self.folder, self.words, self.asked = Path("ears"), words, []
        self._model = self
        self.supported_languages = ["en", "sv"]

    def transcribe(self, waveform: np.ndarray, language: str | None, **options: object) -> tuple[list, None]:
        self.asked.append(language)
        return [SimpleNamespace(text=self.words)], None


def test_words_of_languages_with_regions(monkeypatch: pytest.MonkeyPatch, speech: np.ndarray) -> None:
    ears = ConstantRecogniser("50 turns")
    monkeypatch.setattr(words, "recogniser", lambda judges: ears)
    wer, cer = METRICS["wer"](JUDGES), METRICS["cer"](JUDGES)
    assert wer(Pair(speech, speech, "fifty turns", "en-US")) == (0, 2), "English numbers are made alike"
    assert wer(Pair(speech, speech, "50 turns", "sv-SE")) == (0, 2)
    assert ears.asked == ["en", "sv"] and language_code("zh-CN") in words.BY_CHARACTERS
    for found in (wer, cer):
        assert no_answer(found, Pair(speech, speech, "céad", "ga-IE")) == "ears does not know the language 'ga'"
        assert no_answer(found, Pair(speech, speech, None, "sv")) == "no text"
        assert "no word" in no_answer(found, Pair(speech, speech, "...", "sv"))


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "recogniser", lambda judges: ConstantRecogniser())
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(ImportError, match=r"pip install 'vocable\[eval\]'"):
        METRICS["wer"](JUDGES)


def test_a_package_that_is_broken_is_no_clip_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(judges: Judges) -> Metric:
        raise AttributeError("module 'numpy' has no attribute 'float'")

    monkeypatch.setitem(METRICS, "broken", broken)
    with pytest.raises(ImportError, match=r"metric broken cannot be loaded.*numpy.*repair"):
        load_metric("broken", JUDGES)


def test_a_recogniser_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_whisper", reason="comes with vocable[eval]")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="neither in"):
        METRICS["wer"](Judges(Path("nowhere"), asr="huge"))
