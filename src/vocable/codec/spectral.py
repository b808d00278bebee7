"""The encoder and decoder of `fast`: STFT -> ConvNeXt at 100 Hz -> ConvNeXt and BiLSTM at 50 Hz, and back.

The layout is [B, frames, channels]. `mask` is [B, frames, 1], 1 on valid frames and 0 on padding; None means no
padding. Layers that use more than one frame (depthwise convolution, recurrence, overlap-add) read zeros after a clip's
end, so the output of a clip does not depend on its batch.

A causal encoder or decoder also runs on one frame after another (`_Recurrent.step`), through the same layers: a layer
that gets a `Step` reads the rows before its input from the step's state, instead of padding.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.config import CodecConfig, SpectralConfig
from vocable.codec.convnext import ConvNeXtBlock, run_blocks
from vocable.codec.layers import LSTM, BiLSTM, frame_mask
from vocable.codec.staged import Staged
from vocable.codec.step import Step
from vocable.codec.stft import STFT, PhaseNoise


class _Recurrent(Staged):
    """Base class of encoder and decoder, with one LSTM layer and a residual connection around it."""

    lstm: BiLSTM | LSTM

    @abstractmethod
    def before(self, x: Tensor, lengths: Tensor | None = None, step: Step | None = None) -> Tensor:
        """Run the stage before the recurrence, as in `Staged`; with `step`, on the next frame of streams."""

    @abstractmethod
    def after(
        self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0, step: Step | None = None
    ) -> Tensor:
        """Run the stage after the recurrence, as in `Staged`; with `step`, on the next frame of streams."""

    @property
    def recurrent_layers(self) -> list[nn.Module]:
        return [self.lstm]

    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def start(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state of new streams: zeros, in the shapes that `step` gives them. x: an input of `step`."""
        step = Step({}, torch.full((len(x),), 1000, device="cpu"))
        self.step(x, step)
        return {name: torch.zeros_like(tensor) for name, tensor in step.new.items()}

    def step(self, x: Tensor, step: Step) -> Tensor:
        """Run a causal module on the next frame of each stream: [B, rows_in, ...] -> the module's output for one frame.

        The output is delayed by `step.delay` frames, the look-ahead; that of a decoder by the overlap of its STFT too.
        """
        assert isinstance(self.lstm, LSTM)
        # Stages compiled by `compile_stages` are not used: they are compiled for whole clips.
        x = type(self).before(self, x, step=step)
        zeros = self.lstm.weight_hh_l0.new_zeros(len(x), self.lstm.hidden_size)  # type: ignore[operator]
        hidden, cell = (step.old.get(name, zeros) for name in ("hidden", "cell"))
        y, (new_hidden, new_cell) = self.lstm.step(x, (hidden[None], cell[None]))
        mask = step.mask(x)
        if mask is not None:  # frames before a stream's first one do not change the state
            new_hidden, new_cell = (
                torch.where(mask[:, 0] > 0, new, old) for new, old in ((new_hidden, hidden), (new_cell, cell))
            )
        step.new.update(hidden=new_hidden[0], cell=new_cell[0])
        return type(self).after(self, self.skip(x, y), step=step)


class SpectralEncoder(_Recurrent):
    """Speech [B, L] -> latents [B, ceil(L / hop_length), D]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.rows_in, self.rows_out = config.hop_length, 1
        c = config.spectral
        assert c is not None
        self.stft = STFT(c.n_fft, config.hop_length // 2, c.causal)
        self.embed = nn.Linear(3 * (c.n_fft // 2 + 1), c.fine_dim)
        self.embed_norm = nn.LayerNorm(c.fine_dim)
        self.fine = _blocks(c, c.encoder_fine_blocks, c.fine_dim)
        self.down = nn.Linear(2 * c.fine_dim, c.frame_dim)
        self.frame = _blocks(c, c.encoder_frame_blocks, c.frame_dim, c.encoder_look_ahead)
        self.lstm = _recurrence(c)
        content = config.content_dimension
        self.project = nn.Linear(c.frame_dim, config.dimension - content)
        # Without gain and bias, latents have a fixed norm, so neither they nor the commitment loss can collapse to 0.
        self.norm = nn.LayerNorm(config.dimension - content, elementwise_affine=False)
        self.content = _blocks(c, c.content_blocks, c.frame_dim)
        if content:
            self.content_project = nn.Linear(c.frame_dim, content)
            self.content_norm = nn.LayerNorm(content, elementwise_affine=False)
        # Context of the blocks at 50 and 100 Hz, and of the STFT's window.
        window = self.stft.edge / config.hop_length
        self.before_context = _reach(self.frame, self.fine, window, 0 if c.causal else window)
        self.after_context = _reach(self.content, (), 0, 0)
        if not self.embed.weight.is_meta:
            self._start_as_transform_codec()

    @torch.no_grad()
    def _start_as_transform_codec(self) -> None:
        """Initialize the weights so that latents are the real and imaginary parts of low STFT bins.

        With random weights the codec does not learn to transmit phase in thousands of steps: the log-mel loss shapes
        the latents first, and quantization noise hides the rest. The initial `SpectralDecoder` is the inverse.
        """
        fine_dim = self.embed.out_features
        bins = _start_bins(self.project.out_features, self.project.in_features, fine_dim)
        width = len(bins)
        all_bins = self.embed.in_features // 3
        for part in range(2):  # the real and the imaginary part
            rows = torch.arange(part * width, (part + 1) * width)
            self.embed.weight[rows] = F.one_hot((part + 1) * all_bins + bins, 3 * all_bins).float()
        for half in range(2):  # the two fine frames of a frame
            rows = torch.arange(2 * width)
            self.down.weight[half * 2 * width + rows] = F.one_hot(half * fine_dim + rows, 2 * fine_dim).float()
        rows = torch.arange(4 * width)
        self.project.weight[rows] = F.one_hot(rows, self.project.in_features).float()

    def before(self, x: Tensor, lengths: Tensor | None = None, step: Step | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, L] -> [B, T, frame_dim]."""
        waveform = F.pad(x, (0, -x.shape[1] % self.rows_in))
        frames = None if lengths is None else -(-lengths // self.rows_in)
        mask = frame_mask(frames, waveform.shape[1] // self.rows_in, self.embed.weight)
        real, imag = self.stft(waveform, step)
        magnitude = (real.square() + imag.square() + 1e-9).sqrt()
        compressed = 4.0 * magnitude.pow(-0.7)
        # The three features have a variance of about 1 on speech.
        features = torch.cat([0.4 * magnitude.log() + 2.0, real * compressed, imag * compressed], -1)
        x = self.embed_norm(self.embed(features.to(self.embed.weight.dtype)))
        x = run_blocks(self.fine, x, _twice(mask), step, "fine")
        x = self.down(x.reshape(len(x), -1, self.down.in_features))
        return run_blocks(self.frame, x, mask, step, "frame")

    def after(
        self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0, step: Step | None = None
    ) -> Tensor:
        """Run the stage after the recurrence: [B, T, frame_dim] -> latents [B, T, D].

        The channels that only RVQ-1 quantizes come first.
        """
        latents: Tensor = self.norm(self.project(x).float())
        if not self.content:
            return latents
        mask = frame_mask(num_frames, x.shape[1], self.embed.weight)
        x = run_blocks(self.content, x, mask, step, "content")
        return torch.cat([self.content_norm(self.content_project(x).float()), latents], -1)


class SpectralDecoder(_Recurrent):
    """Latents [B, T, D] -> speech [B, T * hop_length]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        c = config.spectral
        assert c is not None
        self.embed = nn.Linear(config.dimension, c.frame_dim)
        self.lstm = _recurrence(c)
        self.frame = _blocks(c, c.decoder_frame_blocks, c.frame_dim, c.decoder_look_ahead)
        self.up = nn.Linear(c.frame_dim, 2 * c.fine_dim)
        self.fine = _blocks(c, c.decoder_fine_blocks, c.fine_dim)
        self.norm = nn.LayerNorm(c.fine_dim)
        n_fft = c.synthesis_n_fft or c.n_fft
        self.head = nn.Linear(c.fine_dim, 3 * (n_fft // 2 + 1))
        self.stft = STFT(n_fft, config.hop_length // 2, c.causal)
        self.phase_noise = PhaseNoise(n_fft // 2 + 1, c.phase_noise) if c.phase_noise else None
        self.rows_in, self.rows_out = 1, config.hop_length
        self.before_context = (0, 0)
        # Context of the blocks at 50 and 100 Hz, and of overlapping STFT windows.
        window = self.stft.edge / config.hop_length if c.causal else n_fft / config.hop_length
        self.after_context = _reach(self.frame, self.fine, 0 if c.causal else window, window)
        self.coded_n_fft = c.n_fft  #: n_fft of the encoder's STFT
        self.content_dimension = config.content_dimension  #: number of channels that only RVQ-1 quantizes
        if not self.embed.weight.is_meta:
            self._start_as_transform_codec()

    @torch.no_grad()
    def _start_as_transform_codec(self) -> None:
        """Initialize the weights as the inverse of the encoder's initial weights."""
        fine_dim = self.head.in_features
        coded = self.embed.in_features - self.content_dimension
        bins = _start_bins(coded, self.embed.out_features, fine_dim)
        width = len(bins)
        all_bins = self.head.out_features // 3
        rows = torch.arange(4 * width)
        self.embed.weight[rows] = F.one_hot(self.content_dimension + rows, self.embed.in_features).float()
        for half in range(2):
            rows = torch.arange(2 * width)
            self.up.weight[half * fine_dim + rows] = F.one_hot(half * 2 * width + rows, self.up.in_features).float()
        # Every second bin is transmitted; the bins between them are the mean of their neighbours. `ratio` maps the bins
        # of the encoder's STFT to those of an inverse STFT of another size.
        ratio = self.stft.n_fft / self.coded_n_fft
        every_bin = torch.arange(int((2 * width + 1) * ratio) + 1)
        nearness = (1 - (every_bin[:, None] / ratio - bins).abs() / 2).clamp_min(0.0)
        for part in range(2):
            rows = (part + 1) * all_bins + every_bin
            self.head.weight[rows] = 0.0
            self.head.weight[rows, part * width : (part + 1) * width] = nearness
        # Initial magnitudes are those of average speech: from magnitudes of 1, the first steps would only lower them.
        self.head.bias[:all_bins] = -6.0

    def before(self, x: Tensor, lengths: Tensor | None = None, step: Step | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, T, D] -> [B, T, frame_dim]."""
        y: Tensor = self.embed(x.to(self.embed.weight.dtype))
        return y

    def after(
        self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0, step: Step | None = None
    ) -> Tensor:
        """Run the stage after the recurrence: [B, T, frame_dim] -> speech [B, T * hop_length]."""
        mask = frame_mask(num_frames, x.shape[1], self.embed.weight)
        fine_mask = _twice(mask)
        x = run_blocks(self.frame, x, mask, step, "frame")
        x = self.up(x).unflatten(2, (2, -1)).flatten(1, 2)
        x = run_blocks(self.fine, x, fine_mask, step, "fine")
        log_magnitude, cosine, sine = self.head(self.norm(x)).float().chunk(3, dim=-1)
        if self.phase_noise is not None:
            first: int | Tensor = first_frame
            if step is not None:
                first = (step.frame - step.delay)[:, None].to(x.device)
            cosine, sine = self.phase_noise(cosine, sine, 2 * first)
        # The phase is predicted as the direction of a 2-D vector, because an angle would wrap.
        scale = log_magnitude.clamp(max=6.0).exp() * (cosine.square() + sine.square() + 1e-6).rsqrt()
        if step is not None:
            overlapping = self.stft.n_fft // self.stft.hop - 1  # frames at 100 Hz
            fine_mask = _twice(step.mask(scale, -(-overlapping // 2)))
            fine_mask = None if fine_mask is None else fine_mask[:, -(overlapping + 2) :]
        return self.stft.inverse(cosine * scale, sine * scale, fine_mask, step)


def _start_bins(dimension: int, frame_dim: int, fine_dim: int) -> Tensor:
    """Return the STFT bins that an untrained codec transmits: every second bin, as many as fit into 3/4 of the D
    channels (4 values per bin: real and imaginary parts in 2 fine frames)."""
    return 2 * torch.arange(1, min(dimension * 3 // 16, frame_dim // 4, fine_dim // 2) + 1)


def _blocks(c: SpectralConfig, count: int, dim: int, look_ahead: int = 0) -> nn.ModuleList:
    """Return `count` blocks. In a causal codec their look-aheads sum to `look_ahead` frames; the first get more."""
    look_aheads = [(look_ahead + count - 1 - i) // count if c.causal else None for i in range(count)]
    return nn.ModuleList(ConvNeXtBlock(dim, c.expansion, c.kernel_size, frames) for frames in look_aheads)


def _recurrence(c: SpectralConfig) -> BiLSTM | LSTM:
    return LSTM(c.frame_dim, c.frame_dim) if c.causal else BiLSTM(c.frame_dim, c.frame_dim // 2)


def _reach(frame: Iterable[nn.Module], fine: Iterable[nn.Module], *windows: float) -> tuple[int, int]:
    """Return the context before and after a frame, in frames at 50 Hz, of blocks at 50 and 100 Hz and an STFT.

    windows: the context of the STFT frames before and after, in frames at 50 Hz.
    """
    left, right = (
        sum(block.padding[side] for block in frame) + sum(block.padding[side] for block in fine) / 2  # type: ignore[index, misc]
        for side in (0, 1)
    )
    return math.ceil(left + windows[0]), math.ceil(right + windows[1])


def _twice(mask: Tensor | None) -> Tensor | None:
    """Return the mask at 100 Hz of a mask at 50 Hz."""
    return None if mask is None else mask.repeat_interleave(2, 1)
