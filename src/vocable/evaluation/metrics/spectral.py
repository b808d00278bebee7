"""Distances that need no model: log-mel, STFT, SI-SDR."""

from __future__ import annotations

import numpy as np
import torch

from vocable.audio import mel_filterbank
from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Pair, Score

N_FFT, HOP, N_MELS = 1024, 256, 80
FLOOR = 1e-5  #: under magnitudes, before the logarithm


def magnitude(waveform: np.ndarray) -> np.ndarray:
    """float32 [frames, bins], Hann windows of 1024 samples, 256 apart, scaled so that their length does not count."""
    window = torch.hann_window(N_FFT)
    signal = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))
    spectrum = torch.stft(signal, N_FFT, HOP, window=window, normalized=True, pad_mode="constant", return_complex=True)
    result: np.ndarray = spectrum.abs().T.numpy()
    return result


class MelDistance(Metric):
    """Mean absolute difference of log-mel spectra, in nats."""

    name, label, better, bounds, digits = "mel", "mel distance", "lower", (0.0, np.inf), 3

    def __call__(self, pair: Pair) -> Score:
        filters = mel_filterbank(SAMPLE_RATE, N_FFT, N_MELS).numpy()
        a, b = (np.log(magnitude(w) @ filters + FLOOR) for w in (pair.reference, pair.decoded))
        return float(np.abs(a - b).mean()), 1


class STFTDistance(Metric):
    """Spectral convergence plus the mean absolute difference of log magnitudes (Yamamoto et al., arXiv 1910.11480)."""

    name, label, better, bounds, digits = "stft", "STFT distance", "lower", (0.0, np.inf), 3
    citation = "Yamamoto et al., arXiv 1910.11480"

    def __call__(self, pair: Pair) -> Score:
        a, b = magnitude(pair.reference), magnitude(pair.decoded)
        if not a.any():
            return None
        convergence = np.linalg.norm(a - b) / np.linalg.norm(a)
        return float(convergence + np.abs(np.log(a + FLOOR) - np.log(b + FLOOR)).mean()), 1


class SISDR(Metric):
    """Scale-invariant signal-to-distortion ratio in dB: how well the waveform itself is kept, phase and all."""

    name, label, better, bounds, digits = "si-sdr", "SI-SDR dB", "higher", (-np.inf, np.inf), 1
    citation = "Le Roux et al., arXiv 1811.02508"

    def __call__(self, pair: Pair) -> Score:
        a, b = (w.astype(np.float64) - w.mean(dtype=np.float64) for w in (pair.reference, pair.decoded))
        if not a.any() or not b.any():
            return None
        target = (a @ b) / (a @ a) * a
        noise = b - target
        # Bounded: a clip that is kept bit for bit has no noise at all.
        return float(10 * np.log10((target @ target + 1e-12) / (noise @ noise + 1e-12))), 1
