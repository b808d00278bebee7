"""The sound of stimuli: anchors, equal loudness, equal length, beeps. Waveforms are float32 [L] at 16 kHz."""

from __future__ import annotations

import warnings

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.extras import need

PEAK = 0.98  #: the highest sample of a test
STOP_DB = 60.0  #: attenuation of anchors above their band; the standard asks for 25 dB and, 500 Hz higher, 50 dB
BEEP_HZ, BEEP_SECONDS, GAP_SECONDS = 880.0, 0.15, 0.15


def low_pass(waveform: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the anchor of a recording: all below `cutoff` Hz, nothing from 500 Hz above it on.

    The filter has linear phase, so that the anchor is in time with the recording.
    """
    signal = need("scipy.signal", "listen")
    transition = 500.0
    taps, beta = signal.kaiserord(STOP_DB, transition / (SAMPLE_RATE / 2))
    kernel = signal.firwin(taps | 1, cutoff + transition / 2, window=("kaiser", beta), fs=SAMPLE_RATE)
    delay = len(kernel) // 2
    filtered: np.ndarray = signal.oaconvolve(waveform, kernel)[delay : delay + len(waveform)].astype(np.float32)
    return filtered


def loudness(waveform: np.ndarray) -> float:
    """Return the integrated loudness in LUFS (ITU-R BS.1770). Shorter clips than its block of 0.4 s are repeated."""
    meter = need("pyloudnorm", "listen").Meter(SAMPLE_RATE)
    block = int(meter.block_size * SAMPLE_RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(meter.integrated_loudness(np.resize(waveform, max(len(waveform), block + 1)).astype(np.float64)))


def equal_loudness(waveforms: dict[str, np.ndarray], target: float) -> tuple[dict[str, np.ndarray], float]:
    """Bring waveforms to one loudness, and return them with this loudness: `target`, or less if one would clip.

    Raises ValueError for a silent waveform.
    """
    gains = {}
    for name, waveform in waveforms.items():
        level = loudness(waveform)
        if not np.isfinite(level):
            raise ValueError(f"{name} is silent: leave out the clip or the system")
        gains[name] = 10 ** ((target - level) / 20)
    peak = max(float(np.abs(waveform).max()) * gains[name] for name, waveform in waveforms.items())
    lower = min(1.0, PEAK / peak)
    leveled = {name: (waveform * gains[name] * lower).astype(np.float32) for name, waveform in waveforms.items()}
    return leveled, target + 20 * float(np.log10(lower))


def beeps(speech: np.ndarray, count: int) -> np.ndarray:
    """Return an attention check: the speech, and then `count` beeps of its level."""
    time = np.arange(round(BEEP_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * BEEP_HZ * time) * np.hanning(len(time))
    tone *= 2 * np.sqrt(np.mean(speech**2)) / max(np.sqrt(np.mean(tone**2)), 1e-9)
    gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE))
    return np.concatenate([speech, gap, *[np.concatenate([tone, gap])] * count]).astype(np.float32)
