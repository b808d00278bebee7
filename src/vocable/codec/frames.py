"""`FrameSteps`: encode and decode the next frame of a batch of streams, with the state as argument and result."""

from __future__ import annotations

import torch
from torch import Tensor

from vocable.codec.level import HighPass, RunningLevel, gain_curve
from vocable.codec.network import CodecNetwork
from vocable.codec.spectral import SpectralDecoder, SpectralEncoder
from vocable.codec.step import Step

State = dict[str, Tensor]


class FrameSteps:
    """The steps of a causal codec. They are pure functions: two streams of one codec share nothing but its weights.

    The state of a direction is a flat dict of tensors whose first axis is the batch, so states of streams are joined
    with torch.cat and divided by indexing. Its `frame`, int64 [B] on the CPU, is the number of frames so far.

    gain: the factor before the encoder, for a codec with a level; None follows the level of the speech so far.
    """

    def __init__(self, network: CodecNetwork, gain: float | None) -> None:
        config = network.config
        assert config.spectral is not None and config.delay is not None
        self.network, self.hop, self.gain = network, config.hop_length, gain
        self.encoder_delay = config.spectral.encoder_look_ahead  #: frames by which codes are behind the input
        #: samples by which speech is behind its codes
        self.decoder_delay = config.delay - (self.encoder_delay + 1) * self.hop + 1
        self.high_pass = HighPass(config.high_pass, config.sample_rate)
        self.has_level = config.level is not None
        self.level = None
        if config.level is not None and gain is None:
            self.level = RunningLevel(config.level, config.sample_rate, self.hop)
        self._norms = network.quantizer.norms()

    def start_encoder(self, batch: int) -> State:
        """Return the state of `batch` new streams before their first frame."""
        encoder = self.network.staged("encoder")
        assert isinstance(encoder, SpectralEncoder)
        silence = self._norms.new_zeros(batch, self.hop)
        state = encoder.start(silence)
        state |= {"frame": _zeros(batch), "high_pass": self.high_pass.start(silence)}
        if self.has_level:
            state["gain"] = silence.new_ones(batch, self.encoder_delay + 1)
        if self.level is not None:
            state["level"] = self.level.start(batch, silence.device)
        return state

    def encode(
        self, samples: Tensor, state: State, layers: int, end: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, State]:
        """Encode the next frame: float32 [B, hop] -> codes of the first `layers` layers, int64 [B, layers, 1].

        Return the codes, their gains, float32 [B, 1] or None for a codec without a level, and the new state. The codes
        are those of the frame `encoder_delay` frames before this one; they are arbitrary if there is no such frame.
        end: int64 [B] on the CPU, the number of samples of each stream (None: the streams continue).
        """
        encoder = self.network.encoder
        assert isinstance(encoder, SpectralEncoder)
        frame = state["frame"]
        step = Step(state, frame, None if end is None else -(-end // self.hop))
        samples, step.new["high_pass"] = self.high_pass.step(samples, state["high_pass"])
        gain = None
        if self.has_level:
            if self.level is not None:
                gain, step.new["level"] = self.level.step(samples, state["level"])
            else:
                assert self.gain is not None
                gain = torch.full_like(samples[:, :1], self.gain)
            before = _previous(gain, state["gain"], frame)
            gains = step.extend("gain", gain, self.encoder_delay + 1)
            samples, gain = samples * gain_curve(before, gain, self.hop), gains[:, 1:2]
        if end is not None:  # the filter's response after the end is not part of the clip
            valid = torch.arange(self.hop, device="cpu") < (end - frame * self.hop)[:, None]
            samples = samples * valid.to(samples)
        codes = self.network.quantizer.encode(encoder.step(samples, step), layers, self._norms)
        step.new["frame"] = frame + 1
        return codes, gain, step.new

    def start_decoder(self, batch: int) -> State:
        """Return the state of `batch` new streams before their first frame."""
        decoder = self.network.staged("decoder")
        assert isinstance(decoder, SpectralDecoder)
        latents = self._norms.new_zeros(batch, 1, self.network.config.dimension)
        state = decoder.start(latents) | {"frame": _zeros(batch)}
        if self.has_level:
            state["gain"] = latents.new_ones(batch, self.decoder_delay + 1)
        return state

    def decode(
        self, codes: Tensor, gain: Tensor | None, state: State, first_layer: int, end: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Decode the next frame: codes int64 [B, K', 1] of the layers from `first_layer` -> speech float32 [B, hop].

        Return the speech and the new state. The speech is `decoder_delay` samples behind the codes; samples before a
        stream's first one are arbitrary. gain: float32 [B, 1], the divisor of the speech, for a codec with a level.
        end: int64 [B] on the CPU, the number of frames of each stream (None: the streams continue).
        """
        decoder = self.network.decoder
        assert isinstance(decoder, SpectralDecoder)
        frame = state["frame"]
        step = Step(state, frame, end)
        speech = decoder.step(self.network.quantizer.decode(codes, first_layer), step)
        if self.has_level:
            assert gain is not None
            curve = gain_curve(_previous(gain, state["gain"], frame), gain, self.hop)
            speech = speech / step.extend("gain", curve, self.decoder_delay + 1)[:, 1 : self.hop + 1]
        step.new["frame"] = frame + 1
        return speech, step.new


def _previous(gain: Tensor, past: Tensor, frame: Tensor) -> Tensor:
    """Return the gain of the previous frame, [B, 1]; that of the frame itself for the first frame."""
    if int(frame.min()) > 0:
        return past[:, -1:]
    return torch.where(frame[:, None].to(gain.device) > 0, past[:, -1:], gain)


def _zeros(batch: int) -> Tensor:
    return torch.zeros(batch, dtype=torch.int64, device="cpu")
