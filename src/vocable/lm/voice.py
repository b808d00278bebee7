"""A voice: a few seconds of a recording as codes, which speech and conversion take after."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.clips import Waveforms, as_clips
from vocable.codec.encodec import Codec
from vocable.codec.tokens import Encoded, TokensError

SHORTEST, LONGEST = 1.0, 3.0  #: seconds
SILENT = 1e-3  #: a recording whose loudest part has a root mean square below this says nothing


def prepare_voice(codec: Codec, waveform: Waveforms, sample_rate: int | None = None) -> Encoded:
    """The voice of a recording, float [L]: its loudest three seconds as codes, to be kept, `save`, and used again.

    No text is needed. Raises AudioError for a recording that is too short or silent, or is none.
    """
    encoded = codec.encode(waveform, sample_rate)
    if len(encoded) != 1:
        raise AudioError(f"a voice is one recording, not {len(encoded)}")
    rate, frames = codec.frame_rate, int(encoded.num_frames)
    if frames < SHORTEST * rate:
        raise AudioError(f"the recording lasts {frames / rate:.1f} s: a voice takes a second, better three")
    window = min(frames, round(LONGEST * rate))
    sums = np.concatenate([[0.0], np.cumsum(_energy(waveform, frames))])
    windows = sums[window:] - sums[:-window]
    start = int(windows.argmax())
    if windows[start] / window < SILENT**2:
        raise AudioError("the recording is silent: there is no voice in it")
    return dataclasses.replace(
        encoded,
        codes=encoded.codes[:, :, start : start + window],
        num_frames=torch.tensor([window]),
        num_samples=torch.tensor([window * codec.hop_length]),
    )


def voice_codes(codec: Codec, voice: Encoded) -> Tensor:
    """The codes of a voice, int64 [K, P]. Raises TokensError for what `prepare_voice` did not make with this codec."""
    codec.check_token_id(voice.token_id, "a voice")
    if len(voice) != 1 or voice.codes.shape[1] != codec.num_quantizers:
        raise TokensError("a voice is one clip with all layers: use prepare_voice")
    frames = int(voice.num_frames)
    if not SHORTEST * codec.frame_rate <= frames <= round(LONGEST * codec.frame_rate):
        seconds = frames / codec.frame_rate
        raise TokensError(f"a voice has {SHORTEST:g} to {LONGEST:g} s, and this {seconds:.1f}: use prepare_voice")
    return voice.codes[0, :, :frames]


def _energy(waveform: Waveforms, frames: int) -> np.ndarray:
    """The mean square of about each frame, whatever the recording's rate: float64 [T]."""
    samples = as_clips(waveform, None)[0].cpu().numpy().astype(np.float64)
    edges = np.linspace(0, len(samples), frames + 1).astype(int)
    sums = np.concatenate([[0.0], np.cumsum(samples**2)])
    means: np.ndarray = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(1, np.diff(edges))
    return means
