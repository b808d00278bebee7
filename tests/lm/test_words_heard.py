"""Times of words of real speech, beside those that Whisper finds in the waveform."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import ROOT, SPEECH
from vocable import USLM, audio
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.words import normalizer, recogniser


@pytest.mark.slow
def test_words_are_heard_when_they_are_timed() -> None:
    for package in ("faster_whisper", "whisper_normalizer", "phonemizer"):
        pytest.importorskip(package)
    folder = ROOT / ".cache" / "models"
    if not (folder / "asr" / "whisper-tiny.en").is_dir():
        pytest.skip("Whisper tiny.en is not here")
    uslm, hear, normalize = USLM.from_pretrained(), recogniser(Judges(folder, "tiny.en")), normalizer("en")
    recording, rate = audio.read(SPEECH)
    voice = uslm.prepare_voice(recording, sample_rate=rate)
    differences: list[float] = []
    for text in ("The morning was cold, and the river was still. [pause 1s] He walked to the old house.",):
        speech = uslm.generate(text, voice, takes=4)
        heard = {normalize(word.text): word for word in hear.timed_words(speech.waveform.numpy(), "en")}
        assert speech.words
        for word in speech.words:
            other = heard.get(normalize(word.text))
            if other and [normalize(w.text) for w in speech.words].count(normalize(word.text)) == 1:
                differences += [abs(word.start - other.start), abs(word.end - other.end)]
    assert len(differences) >= 8 and np.median(differences) < 0.15
