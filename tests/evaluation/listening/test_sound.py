from __future__ import annotations

import numpy as np
import pytest

from conftest import SPEECH
from vocable import audio
from vocable.evaluation.listening import sound


@pytest.mark.parametrize("cutoff", [3500, 7000])
def test_the_bands_of_anchors(cutoff: int) -> None:
    impulse = np.zeros(16000, np.float32)
    impulse[8000] = 1
    response = 20 * np.log10(np.abs(np.fft.rfft(sound.low_pass(impulse, cutoff))) + 1e-9)  # a bin is 1 Hz
    assert np.abs(response[:cutoff]).max() < 0.1
    assert response[cutoff + 500 :].max() < -25
    if cutoff == 3500:
        assert response[cutoff + 1000 :].max() < -50


def test_anchors_are_in_time_with_the_recording() -> None:
    speech, _ = audio.read(SPEECH, 16000)
    anchor = sound.low_pass(speech, 3500)
    assert len(anchor) == len(speech) and anchor.dtype == np.float32
    lags = range(-20, 21)
    correlations = [float(speech[1000:-1000] @ anchor[1000 + lag : len(anchor) - 1000 + lag]) for lag in lags]
    assert lags[int(np.argmax(correlations))] == 0


def test_one_loudness_without_clipping() -> None:
    speech, _ = audio.read(SPEECH, 16000)
    impulsive = 0.01 * speech
    impulsive[::4000] = 0.9
    found, reached = sound.equal_loudness({"a": speech, "b": 0.02 * speech, "c": impulsive}, -20.0)
    assert reached < -20.0
    assert max(np.abs(waveform).max() for waveform in found.values()) <= sound.PEAK + 1e-6
    assert [sound.loudness(waveform) for waveform in found.values()] == pytest.approx([reached] * 3, abs=0.05)
    with pytest.raises(ValueError, match="b is silent"):
        sound.equal_loudness({"a": speech, "b": np.zeros(16000, np.float32)}, -26.0)


@pytest.mark.parametrize("count", [1, 5])
def test_beeps_can_be_counted(count: int) -> None:
    speech, _ = audio.read(SPEECH, 16000)
    made = sound.beeps(speech[:24000], count)
    frames = made[24000:].reshape(-1, 80)
    loud = (np.abs(frames).max(1) > 0.3 * np.abs(made[24000:]).max()).astype(int)
    assert (np.diff(loud) == 1).sum() == count
