"""Metrics that need no model: log-mel and STFT distance, SI-SDR, and tones in unvoiced speech."""

from __future__ import annotations

import numpy as np
import torch

from vocable.audio import mel_filterbank
from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, NoAnswer, Pair, Score, register

N_FFT, HOP, N_MELS = 1024, 256, 80
FLOOR = 1e-5  #: added to magnitudes before the logarithm
FRAME = 160  #: samples, 10 ms: the period of the tones that `Stripes` measures
WINDOW = 8 * FRAME  #: samples: tones 100 Hz apart are 8 bins apart, and the main lobe of a Hann window spans 4
OVERLAP = 4  #: windows that contain each sample
BANDS = 4  #: between 4 and 8 kHz
LOUD = 0.01  #: fraction of the clip's mean power; less power above 4 kHz is background noise


def magnitude(waveform: np.ndarray) -> np.ndarray:
    """Return magnitudes float32 [frames, bins]: Hann windows of 1024 samples, 256 apart, normalised by their length."""
    window = torch.hann_window(N_FFT)
    signal = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))
    spectrum = torch.stft(signal, N_FFT, HOP, window=window, normalized=True, pad_mode="constant", return_complex=True)
    result: np.ndarray = spectrum.abs().T.numpy()
    return result


@register
class MelDistance(Metric):
    """Mean absolute difference of log-mel spectra, in nats."""

    name, label, better, bounds, digits = "mel", "mel distance", "lower", (0.0, np.inf), 3

    def __call__(self, pair: Pair) -> Score:
        """Return the mean distance."""
        filters = mel_filterbank(SAMPLE_RATE, N_FFT, N_MELS).numpy()
        a, b = (np.log(magnitude(w) @ filters + FLOOR) for w in (pair.reference, pair.decoded))
        return float(np.abs(a - b).mean()), 1


@register
class STFTDistance(Metric):
    """Spectral convergence plus the mean absolute difference of log magnitudes (Yamamoto et al., arXiv 1910.11480)."""

    name, label, better, bounds, digits = "stft", "STFT distance", "lower", (0.0, np.inf), 3
    citation = "Yamamoto et al., arXiv 1910.11480"

    def __call__(self, pair: Pair) -> Score:
        """Return the distance. Raises NoAnswer for a silent recording."""
        a, b = magnitude(pair.reference), magnitude(pair.decoded)
        if not a.any():
            raise NoAnswer("the recording is silent")
        convergence = np.linalg.norm(a - b) / np.linalg.norm(a)
        return float(convergence + np.abs(np.log(a + FLOOR) - np.log(b + FLOOR)).mean()), 1


@register
class SISDR(Metric):
    """Scale-invariant signal-to-distortion ratio in dB: how well the waveform is preserved, with its phase."""

    name, label, better, bounds, digits = "si-sdr", "SI-SDR dB", "higher", (-np.inf, np.inf), 1
    citation = "Le Roux et al., arXiv 1811.02508"

    def __call__(self, pair: Pair) -> Score:
        """Return the ratio in dB. Raises NoAnswer for silence."""
        a, b = (w.astype(np.float64) - w.mean(dtype=np.float64) for w in (pair.reference, pair.decoded))
        if not a.any() or not b.any():
            raise NoAnswer("the recording or the decoded speech is silent")
        target = (a @ b) / (a @ a) * a
        noise = b - target
        # The constants bound the ratio: a clip that is preserved exactly has no noise.
        return float(10 * np.log10((target @ target + 1e-12) / (noise @ noise + 1e-12))), 1


@register
class Stripes(Metric):
    """Tones of a decoder in unvoiced sounds: the squared correlation of the signal with itself 10 ms later, in %.

    The noise of a deterministic decoder with STFT frames of 10 ms repeats from frame to frame, up to a phase. In a
    spectrogram it forms horizontal stripes, 100 Hz apart: at multiples of 100 Hz if the phase is constant, between them
    if it advances. The windows that count are those where most of the recording's power is above 4 kHz; they are the
    same for every codec. The correlation is averaged over pairs of windows that do not overlap, as a complex number, so
    that noise of any spectrum has the expectation 0, however few windows there are.
    """

    name, label, better, bounds, scale, digits = "stripes", "stripes %", "lower", (-1.0, 1.0), 100.0, 2

    def __call__(self, pair: Pair) -> Score:
        """Return the squared correlation, weighted by the unvoiced windows. Raises NoAnswer for too few of them."""
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
    """Return power spectra float64 [windows, WINDOW / 2], 0 to 8 kHz: Hann windows of 80 ms, 20 ms apart."""
    padded = np.pad(waveform.astype(np.float64), (0, max(0, WINDOW - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: WINDOW // OVERLAP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum: np.ndarray = np.square(np.abs(np.fft.rfft(windows * hann)))[:, :-1]
    return spectrum


def correlations(spectra: np.ndarray) -> np.ndarray:
    """Correlate each band from 4 to 8 kHz with itself FRAME samples later: complex [windows, BANDS].

    spectra: [windows, bins] of `power`. The Fourier sum of a power spectrum is the autocorrelation; its angle is the
    advance of the phase.
    """
    bands = spectra[:, spectra.shape[1] // 2 :].reshape(len(spectra), BANDS, -1)
    turns = np.exp(2j * np.pi * FRAME / WINDOW * np.arange(bands.shape[2]))
    found: np.ndarray = bands @ turns / (bands.sum(2) + 1e-12)
    return found
