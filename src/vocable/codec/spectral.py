"""The encoder and decoder of `fast`: STFT -> ConvNeXt at 100 Hz -> ConvNeXt and BiLSTM at 50 Hz, and back.

The layout is [B, frames, channels]. `mask` is [B, frames, 1], 1 on valid frames and 0 on padding; None means no
padding. Layers that use more than one frame (depthwise convolution, recurrence, overlap-add) read zeros after a clip's
end, so the output of a clip does not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.config import CodecConfig, SpectralConfig
from vocable.codec.layers import LSTM, BiLSTM, frame_mask, no_autocast
from vocable.codec.rvq import Float32Module
from vocable.codec.staged import Staged


class STFT(Float32Module):
    """STFT with `n_fft` samples per frame and a hop of `hop` samples, and its inverse, as real matrix products.

    Unlike torch.stft, real matrix products can be exported to any runtime. n_fft - hop zeros of padding make exactly
    L / hop frames of L samples.

    Offline, a frame is centred on its hop, half of the padding is on each side of the clip, and the window is a Hann
    window. A causal frame ends with its hop, all padding is before the clip, and the window rises over n_fft - hop
    samples and falls over the last hop. Phases are relative to the peak of the window, so that the phases of
    neighbouring bins of a partial are equal, and do not depend on the size of a causal frame.
    """

    window: Tensor
    analysis: Tensor
    synthesis: Tensor

    def __init__(self, n_fft: int, hop: int, causal: bool = False) -> None:
        super().__init__()
        if n_fft % hop:
            raise ValueError(f"n_fft ({n_fft}) must be a multiple of the STFT hop ({hop})")
        self.n_fft, self.hop = n_fft, hop
        self.edge = n_fft - hop if causal else (n_fft - hop) // 2  #: zeros before the clip
        #: Lower limit of the summed squared window, which overlap-add divides by. The last hop of a causal clip belongs
        #: to one frame only, whose window falls to 0, and dividing by it would amplify noise.
        self.floor = 0.25 if causal else 1e-4
        bins = n_fft // 2 + 1
        with torch.device("cpu"):  # never on the meta device, because no checkpoint holds these buffers
            peak = n_fft - hop if causal else n_fft // 2
            samples = torch.arange(n_fft, dtype=torch.float64) - peak
            angle = 2 * math.pi * samples[:, None] * torch.arange(bins) / n_fft
            window = _causal_window(n_fft, hop) if causal else torch.hann_window(n_fft, dtype=torch.float64)
            # Each bin except the first and the last also represents its negative frequency.
            twice = torch.full((bins,), 2.0, dtype=torch.float64)
            twice[0] = twice[-1] = 1.0
            analysis, synthesis = torch.empty(2, n_fft, 2 * bins)
            for columns, part in ((slice(bins), torch.cos), (slice(bins, None), lambda x: -x.sin())):
                wave = part(angle)  # one at a time, to halve the memory
                analysis[:, columns] = window[:, None] * wave / math.sqrt(n_fft)
                synthesis[:, columns] = wave * twice * window[:, None] / math.sqrt(n_fft)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis.T, persistent=False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts: [B, L], L a multiple of the hop -> two of [B, L / hop, n_fft / 2 + 1]."""
        frames = F.pad(waveform.float(), (self.edge, self.n_fft - self.hop - self.edge)).unfold(1, self.n_fft, self.hop)
        with no_autocast(waveform.device):
            real, imag = (frames @ self.analysis).chunk(2, dim=-1)
        return real, imag

    def inverse(self, real: Tensor, imag: Tensor, mask: Tensor | None) -> Tensor:
        """Invert `forward`: overlap-add, divided by the summed squared window, without the padding.

        The inverse is exact except in the last hop of a causal clip.
        """
        with no_autocast(real.device):
            frames = torch.cat([real, imag], -1).float() @ self.synthesis
        weight = self.window.square().expand(1, frames.shape[1], -1)
        if mask is not None:
            frames, weight = frames * mask, weight * mask
        return self._overlap_add(frames) / self._overlap_add(weight).clamp_min(self.floor)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Overlap-add frames: [B, F, n_fft] -> [B, F * hop]."""
        # Piece i of the n_fft / hop pieces of a frame begins i hops after the frame.
        pieces = frames.view(*frames.shape[:2], -1, self.hop)
        count = pieces.shape[2]
        summed = sum(F.pad(pieces[:, :, i], (0, 0, i, count - 1 - i)) for i in range(count))
        assert isinstance(summed, Tensor)
        return summed.flatten(1)[:, self.edge : self.edge + frames.shape[1] * self.hop]


def _causal_window(n_fft: int, hop: int) -> Tensor:
    """Return a window that rises as a sine over n_fft - hop samples and falls as a cosine over the last hop."""
    rise = torch.sin(math.pi / 2 * (torch.arange(n_fft - hop, dtype=torch.float64) + 0.5) / (n_fft - hop))
    fall = torch.cos(math.pi / 2 * (torch.arange(hop, dtype=torch.float64) + 0.5) / hop)
    return torch.cat([rise, fall])


class ConvNeXtBlock(nn.Module):
    """A 1-D ConvNeXt block (arXiv 2201.03545): depthwise convolution, layer norm, two-layer perceptron, residual.

    look_ahead: future frames that the convolution uses (None: half of the kernel).
    """

    def __init__(self, dim: int, expansion: int, kernel_size: int, look_ahead: int | None = None) -> None:
        super().__init__()
        half = kernel_size // 2
        right = half if look_ahead is None else look_ahead
        #: Zero padding before and after the frames. Symmetric padding is done by the convolution itself.
        self.padding = (kernel_size - 1 - right, right)
        own = half if right == half else 0
        self.depthwise = nn.Conv2d(dim, dim, (1, kernel_size), padding=(0, own), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, expansion * dim)
        self.contract = nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run the block: [B, T, D] -> [B, T, D]. mask: [B, T, 1], 1 on valid frames; None: all are valid."""
        y = x if mask is None else x * mask
        if self.depthwise.padding == (0, 0):
            y = F.pad(y, (0, 0, *self.padding))
        # An image [B, D, 1, frames] in channels-last layout needs no transpose, and CPUs have a fast kernel for it.
        y = self.depthwise(y.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        y = self.contract(F.gelu(self.expand(self.norm(y))))
        return torch.addcmul(x, y.to(x.dtype), self.scale)


class _Recurrent(Staged):
    """Base class of encoder and decoder, with one LSTM layer and a residual connection around it."""

    lstm: BiLSTM | LSTM

    @property
    def recurrent_layers(self) -> list[nn.Module]:
        return [self.lstm]

    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


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

    def before(self, waveform: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, L] -> [B, T, frame_dim]."""
        waveform = F.pad(waveform, (0, -waveform.shape[1] % self.rows_in))
        frames = None if num_samples is None else -(-num_samples // self.rows_in)
        mask = frame_mask(frames, waveform.shape[1] // self.rows_in, self.embed.weight)
        fine_mask = _twice(mask)
        real, imag = self.stft(waveform)
        magnitude = (real.square() + imag.square() + 1e-9).sqrt()
        compressed = 4.0 * magnitude.pow(-0.7)
        # The three features have a variance of about 1 on speech.
        features = torch.cat([0.4 * magnitude.log() + 2.0, real * compressed, imag * compressed], -1)
        x = self.embed_norm(self.embed(features.to(self.embed.weight.dtype)))
        for block in self.fine:
            x = block(x, fine_mask)
        y: Tensor = self.down(x.unflatten(1, (-1, 2)).flatten(2))
        for block in self.frame:
            y = block(y, mask)
        return y

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """Run the stage after the recurrence: [B, T, frame_dim] -> latents [B, T, D].

        The channels that only RVQ-1 quantizes come first.
        """
        latents: Tensor = self.norm(self.project(x).float())
        if not self.content:
            return latents
        mask = frame_mask(num_frames, x.shape[1], self.embed.weight)
        for block in self.content:
            x = block(x, mask)
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

    def before(self, latents: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, T, D] -> [B, T, frame_dim]."""
        x: Tensor = self.embed(latents.to(self.embed.weight.dtype))
        return x

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """Run the stage after the recurrence: [B, T, frame_dim] -> speech [B, T * hop_length]."""
        mask = frame_mask(num_frames, x.shape[1], self.embed.weight)
        fine_mask = _twice(mask)
        for block in self.frame:
            x = block(x, mask)
        x = self.up(x).unflatten(2, (2, -1)).flatten(1, 2)
        for block in self.fine:
            x = block(x, fine_mask)
        log_magnitude, cosine, sine = self.head(self.norm(x)).float().chunk(3, dim=-1)
        if self.phase_noise is not None:
            cosine, sine = self.phase_noise(cosine, sine, 2 * first_frame)
        # The phase is predicted as the direction of a 2-D vector, because an angle would wrap.
        scale = log_magnitude.clamp(max=6.0).exp() * (cosine.square() + sine.square() + 1e-6).rsqrt()
        return self.stft.inverse(cosine * scale, sine * scale, fine_mask)


class PhaseNoise(Float32Module):
    """Noise on the decoder's phase vectors: adds a vector of length `length` and pseudo-random direction to each one.

    Where the phase is predictable, the phase vector is long, and the noise hardly changes its direction. Elsewhere, as
    in fricatives, the noise makes the phase random; otherwise it would be the same in all frames, which is audible as
    a tone at the frame rate. The direction depends only on the frame's index and the bin, so decoding in chunks gives
    the same speech as decoding at once.
    """

    directions: Tensor

    PERIOD = 1021  #: fine frames (10 s) after which the directions repeat

    def __init__(self, bins: int, length: float) -> None:
        super().__init__()
        with torch.device("cpu"):
            angle = 2 * math.pi * _hash(torch.arange(self.PERIOD * bins)).view(self.PERIOD, bins)
            directions = length * torch.stack([angle.cos(), angle.sin()])
        self.register_buffer("directions", directions.float(), persistent=False)

    def forward(self, cosine: Tensor, sine: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Add noise to phase vectors (cosine, sine), both [B, F, bins]. first: index of the first frame in its clip."""
        rows = (first + torch.arange(cosine.shape[1], device=cosine.device)) % self.PERIOD
        return cosine + self.directions[0, rows], sine + self.directions[1, rows]


def _hash(numbers: Tensor) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each integer, by two rounds of multiply and xor-shift in 32 bits.

    torch's generators are not used, because their numbers may change between versions.
    """
    x = numbers.to(torch.int64) + 1
    for factor in (0x9E3779B1, 0x85EBCA6B):
        x = (x * factor) & 0xFFFFFFFF
        x = x ^ (x >> 15)
    return x.double() / 2**32


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
