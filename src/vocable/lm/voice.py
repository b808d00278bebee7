"""A voice: a few seconds of a recording as codes, to speak in and to convert to."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError, resample
from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms, as_clips
from vocable.codec.tokens import Encoded, TokensError

SHORTEST, LONGEST = 1.0, 3.0  #: seconds of a voice
SILENT = 3e-5  #: root mean square, one step of 16 bits; a recording below it is silent
#: Root mean square that every voice is scaled to, because codes depend on the level: that of read speech.
LEVEL = 0.055

#: Analysis that finds speech: sample rate in Hz, samples per window, samples from one frame to the next, and frames of
#: the moving average (about a syllable).
_RATE, _WINDOW, _HOP, _SYLLABLE = 16_000, 512, 320, 13
_BANDS = np.unique(np.geomspace(3, 225, 25).astype(int))  #: edges in bins of the window's spectrum: 90 to 7,000 Hz
_CHANGE_CAP = 6.0  #: dB; larger changes of a frame's spectrum count as this one
#: Clean speech has more than this: mean change of the spectrum in dB, and dB from its pauses to its vowels.
_LEAST_CHANGE, _LEAST_RANGE = 2.4, 14.0


def prepare_voice(codec: Codec, waveform: Waveforms, *, sample_rate: int | None = None) -> Encoded:
    """Encode the voice of a recording: the three seconds that hold most speech, scaled to one level.

    waveform: float [L]; no text is needed. sample_rate: of the waveform in Hz (None: the codec's). The result can be
    saved (`Encoded.save`) and used again. Warns if the recording is noisy or hardly sounds like speech. Raises
    AudioError if it is shorter than a second, silent, or not one recording.
    """
    clips = as_clips(waveform, None)
    if len(clips) != 1:
        raise AudioError(f"a voice needs one recording, not {len(clips)}")
    samples, rate = clips[0].cpu().numpy(), sample_rate or codec.sample_rate
    frames = round(LONGEST * codec.frame_rate)
    seconds = len(samples) / rate
    if seconds < SHORTEST:
        raise AudioError(f"the recording lasts {seconds:.1f} s: a voice needs a second, better three")
    bands = _levels(resample(samples, rate, _RATE))
    change, loudness = _change(bands), np.log10(np.power(10, bands / 10).sum(1)) * 10
    width = min(len(change), round(LONGEST * _RATE / _HOP))
    start = int(np.convolve(change, np.ones(width), "valid").argmax())
    chosen = samples[round(start * _HOP / _RATE * rate) :][: round(frames / codec.frame_rate * rate)]
    level = float(np.sqrt(np.mean(chosen.astype(np.float64) ** 2)))
    if level < SILENT:
        raise AudioError("the recording is silent: there is no voice in it")
    low, high = np.percentile(loudness[start : start + width], [5, 90])
    if change[start : start + width].mean() < _LEAST_CHANGE:
        warnings.warn("the recording hardly sounds like speech: its voice may be lost", stacklevel=2)
    elif high - low < _LEAST_RANGE:
        warnings.warn("the recording is noisy: speech in its voice will be noisy too", stacklevel=2)
    encoded = codec.encode(chosen * np.float32(LEVEL / level), sample_rate=sample_rate)
    frames = min(frames, int(encoded.num_frames))
    return dataclasses.replace(
        encoded,
        codes=encoded.codes[:, :, :frames],
        num_frames=torch.tensor([frames]),
        num_samples=torch.tensor([frames * codec.hop_length]),
    )


def voice_codes(codec: Codec, voice: Encoded) -> Tensor:
    """Return the codes of a voice, int64 [K, P].

    Raises TokensError unless it is an `Encoded` that `prepare_voice` can have made with this codec.
    """
    if not isinstance(voice, Encoded):
        raise TokensError(
            f"a voice is what prepare_voice returns, or Encoded.load of its file, not {type(voice).__name__}"
        )
    codec.check_token_id(voice.token_id, "a voice")
    if len(voice) != 1 or voice.codes.shape[1] != codec.num_quantizers:
        raise TokensError("a voice is one clip with all layers: use prepare_voice")
    frames = int(voice.num_frames)
    if not SHORTEST * codec.frame_rate <= frames <= round(LONGEST * codec.frame_rate):
        seconds = frames / codec.frame_rate
        raise TokensError(f"a voice lasts {SHORTEST:g} to {LONGEST:g} s, this one {seconds:.1f}: use prepare_voice")
    codes = voice.codes[0, :, :frames]
    if codes.dtype.is_floating_point or codes.shape[1] != frames:
        raise TokensError(f"the codes of a voice are integers for each of its {frames} frames: use prepare_voice")
    codec.embed(codes[None])  # raises TokensError for codes out of range
    return codes


def _levels(waveform: np.ndarray) -> np.ndarray:
    """Return the level of each frame in each band in dB: float [T, bands]."""
    padded = np.pad(waveform, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW)
    # In blocks, because all windows of an hour take gigabytes.
    blocks = [frames[i : i + 4096] * window for i in range(0, len(frames), 4096)]
    power = [np.add.reduceat(np.abs(np.fft.rfft(b)) ** 2, _BANDS, axis=1)[:, :-1] for b in blocks]
    levels: np.ndarray = 10 * np.log10(np.concatenate(power) + 1e-12)
    return levels


def _change(levels: np.ndarray) -> np.ndarray:
    """Return the difference between the shape of each frame's spectrum and the mean shape of the frames around it, in
    dB: float [T].

    The shape of speech changes all the time; that of a tone, a chord, a hum or noise does not, and that of clicks and
    drums only for a moment. The measure is independent of level: each band counts above its own background, and a
    change that all bands have in common does not count.
    """
    loudest = np.percentile(levels.max(1), 99)
    background = np.maximum(np.percentile(levels, 10, axis=0), loudest - 60)
    above = np.clip(levels - background, 0, 40)
    shape = above - above.mean(1, keepdims=True)
    before = _SYLLABLE // 2
    sums = np.cumsum(np.pad(shape, ((before + 1, before), (0, 0)), mode="edge"), axis=0)
    around = (sums[_SYLLABLE:] - sums[:-_SYLLABLE]) / _SYLLABLE
    capped: np.ndarray = np.minimum(np.abs(shape - around).mean(1), _CHANGE_CAP)
    return capped
