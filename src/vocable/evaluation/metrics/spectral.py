"""Figures that need no model: log-mel and STFT distance, SI-SDR, and tones in unvoiced speech."""

from __future__ import annotations

import numpy as np
import torch

from vocable.audio import mel_filterbank
from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, NoAnswer, Pair, Score

N_FFT, HOP, N_MELS = 1024, 256, 80
FLOOR = 1e-5  #: under magnitudes, before the logarithm
FRAME = 160  #: samples from one STFT frame of our spectral decoders to the next, 10 ms
WINDOW = 8 * FRAME  #: samples: tones that are 100 Hz apart are 8 bins apart, and a Hann window's main lobe spans 4
OVERLAP = 4  #: windows that a sample lies in
BANDS = 4  #: between 4 and 8 kHz
LOUD = 0.01  #: of the clip's mean power, at least, above 4 kHz: less is background noise


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
            raise NoAnswer("the recording is silent")
        convergence = np.linalg.norm(a - b) / np.linalg.norm(a)
        return float(convergence + np.abs(np.log(a + FLOOR) - np.log(b + FLOOR)).mean()), 1


class SISDR(Metric):
    """Scale-invariant signal-to-distortion ratio in dB: how well the waveform itself is kept, phase and all."""

    name, label, better, bounds, digits = "si-sdr", "SI-SDR dB", "higher", (-np.inf, np.inf), 1
    citation = "Le Roux et al., arXiv 1811.02508"

    def __call__(self, pair: Pair) -> Score:
        a, b = (w.astype(np.float64) - w.mean(dtype=np.float64) for w in (pair.reference, pair.decoded))
        if not a.any() or not b.any():
            raise NoAnswer("the recording or the decoded speech is silent")
        target = (a @ b) / (a @ a) * a
        noise = b - target
        # Bounded: a clip that is kept bit for bit has no noise at all.
        return float(10 * np.log10((target @ target + 1e-12) / (noise @ noise + 1e-12))), 1


class Stripes(Metric):
    """Tones of a decoder in unvoiced sounds: the square of how they correlate with themselves 10 ms later, in %.

    A decoder without randomness makes noise that repeats from one STFT frame to the next, up to a phase: horizontal
    stripes in a spectrogram, 100 Hz apart. They lie at multiples of 100 Hz where the phase stays, between these where
    it advances. The windows that count are those where the recording has most of its power above 4 kHz: the same for
    every codec. A correlation counts as far as windows of the clip that do not overlap agree on it, phase and all: so
    that noise of any spectrum gives 0, however few the windows.
    """

    name, label, better, bounds, scale, digits = "stripes", "stripes %", "lower", (-1.0, 1.0), 100.0, 2

    def __call__(self, pair: Pair) -> Score:
        reference = power(pair.reference)
        half = reference.shape[1] // 2
        low, high = reference[:, :half].sum(1), reference[:, half:].sum(1)
        unvoiced = np.flatnonzero((high > low) & (high > LOUD * (low + high).mean()))
        apart = np.abs(unvoiced[:, None] - unvoiced) >= OVERLAP
        if not apart.any():
            raise NoAnswer("too little unvoiced speech")
        found = correlations(power(pair.decoded)[unvoiced])
        agreement = (found @ found.conj().T).real / BANDS  # [windows, windows]
        return float(agreement[apart].mean()) * len(unvoiced), len(unvoiced)


def power(waveform: np.ndarray) -> np.ndarray:
    """float64 [windows, WINDOW / 2], from 0 Hz to 8 kHz: Hann windows of 80 ms, 20 ms apart."""
    padded = np.pad(waveform.astype(np.float64), (0, max(0, WINDOW - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // OVERLAP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum: np.ndarray = np.square(np.abs(np.fft.rfft(windows * hann)))[:, :-1]
    return spectrum


def correlations(spectra: np.ndarray) -> np.ndarray:
    """Of each band from 4 to 8 kHz with itself FRAME samples later: complex [windows, BANDS].

    spectra: [windows, bins] of `power`. Their Fourier sum is the autocorrelation; its angle, how far phases advance.
    """
    bands = spectra[:, spectra.shape[1] // 2 :].reshape(len(spectra), BANDS, -1)
    turns = np.exp(2j * np.pi * FRAME / WINDOW * np.arange(bands.shape[2]))
    found: np.ndarray = bands @ turns / (bands.sum(2) + 1e-12)
    return found
