"""The encoder and decoder of `fast`: STFT -> ConvNeXt at 100 Hz -> ConvNeXt and BiLSTM at 50 Hz, and back.

Layout [B, frames, channels] throughout. `mask` is [B, frames, 1], 1 on a clip's own frames and 0 behind them; None
stands for clips of equal length. Whatever looks beyond one frame (depthwise convolution, recurrence, overlap-add)
sees zeros behind a clip's end, so that a clip comes out the same alone and in any batch.
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
    """DFT of frames `n_fft` long and `hop` apart under a window, and its inverse, as real matrix products.

    Real matrices rather than torch.stft: they export to any runtime and batch without complex numbers. Zeros at the
    edges, n_fft - hop in all, make L samples give exactly L / hop frames.

    Offline, a frame is centred on its hop, half of the zeros stand on either side, and the window is Hann's. A causal
    frame ends with its hop, all zeros stand before the clip, and the window peaks one hop before the frame's end: it
    rises over n_fft - hop samples and falls over the last hop. Phases are those at the window's peak, so that
    neighbouring bins of one partial agree, and that causal frames of two sizes agree with each other.
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
        #: The least summed squared window that overlap-add divides by: a causal clip's last hop has one frame alone,
        #: whose window falls to 0, and must not raise that frame's noise.
        self.floor = 0.25 if causal else 1e-4
        bins = n_fft // 2 + 1
        with torch.device("cpu"):  # no checkpoint holds these: they are needed even where a model is shapes alone
            peak = n_fft - hop if causal else n_fft // 2
            samples = torch.arange(n_fft, dtype=torch.float64) - peak
            angle = 2 * math.pi * samples[:, None] * torch.arange(bins) / n_fft
            window = _causal_window(n_fft, hop) if causal else torch.hann_window(n_fft, dtype=torch.float64)
            # Every bin but the first and the last stands for its mirror image too.
            twice = torch.full((bins,), 2.0, dtype=torch.float64)
            twice[0] = twice[-1] = 1.0
            analysis, synthesis = torch.empty(2, n_fft, 2 * bins)
            for columns, part in ((slice(bins), torch.cos), (slice(bins, None), lambda x: -x.sin())):
                wave = part(angle)  # one after the other, which takes half the memory
                analysis[:, columns] = window[:, None] * wave / math.sqrt(n_fft)
                synthesis[:, columns] = wave * twice * window[:, None] / math.sqrt(n_fft)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis.T, persistent=False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts: [B, L], L a multiple of the hop -> two of [B, L / hop, n_fft / 2 + 1]."""
        frames = F.pad(waveform.float(), (self.edge, self.n_fft - self.hop - self.edge)).unfold(1, self.n_fft, self.hop)
        with no_autocast(waveform.device):
            real, imag = (frames @ self.analysis).chunk(2, dim=-1)
        return real, imag

    def inverse(self, real: Tensor, imag: Tensor, mask: Tensor | None) -> Tensor:
        """Overlap-add divided by the summed squared window, edges trimmed: the left inverse of `forward`, but for a
        causal clip's last hop."""
        with no_autocast(real.device):
            frames = torch.cat([real, imag], -1).float() @ self.synthesis
        weight = self.window.square().expand(1, frames.shape[1], -1)
        if mask is not None:
            frames, weight = frames * mask, weight * mask
        return self._overlap_add(frames) / self._overlap_add(weight).clamp_min(self.floor)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[B, F, n_fft] -> [B, F * hop]. A frame is n_fft / hop pieces; piece i lands i hops after its frame."""
        pieces = frames.view(*frames.shape[:2], -1, self.hop)
        count = pieces.shape[2]
        summed = sum(F.pad(pieces[:, :, i], (0, 0, i, count - 1 - i)) for i in range(count))
        assert isinstance(summed, Tensor)
        return summed.flatten(1)[:, self.edge : self.edge + frames.shape[1] * self.hop]


def _causal_window(n_fft: int, hop: int) -> Tensor:
    """Half a sine over n_fft - hop samples up, half a sine over a hop down; with n_fft = 2 hop the sine window."""
    rise = torch.sin(math.pi / 2 * (torch.arange(n_fft - hop, dtype=torch.float64) + 0.5) / (n_fft - hop))
    fall = torch.cos(math.pi / 2 * (torch.arange(hop, dtype=torch.float64) + 0.5) / hop)
    return torch.cat([rise, fall])


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, two-layer perceptron, residual (ConvNeXt, arXiv 2201.03545, in 1-D).

    look_ahead: frames after the current one that the convolution sees; None: half of the kernel.
    """

    def __init__(self, dim: int, expansion: int, kernel_size: int, look_ahead: int | None = None) -> None:
        super().__init__()
        half = kernel_size // 2
        right = half if look_ahead is None else look_ahead
        #: Zeros before and after the frames; the convolution pads symmetrically by itself.
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
        # [B, 1, frames, D] seen as an image in channels-last layout: no transpose, and a fast CPU kernel.
        y = self.depthwise(y.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        y = self.contract(F.gelu(self.expand(self.norm(y))))
        return torch.addcmul(x, y.to(x.dtype), self.scale)


class _Recurrent(Staged):
    """The recurrence of both encoder and decoder: one LSTM layer with a residual connection."""

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
        # No gain and no bias: latents keep their length, so neither they nor the commitment loss can collapse.
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
        """Initialize the weights so that latents are real and imaginary parts of low STFT bins.

        From random weights the path that carries phase is not found in thousands of steps: the log-mel loss shapes the
        latents first, and then quantization noise covers what is left. `SpectralDecoder` begins as the inverse.
        """
        fine_dim = self.embed.out_features
        bins = _start_bins(self.project.out_features, self.project.in_features, fine_dim)
        width = len(bins)
        all_bins = self.embed.in_features // 3
        for part in range(2):  # real, imaginary
            rows = torch.arange(part * width, (part + 1) * width)
            self.embed.weight[rows] = F.one_hot((part + 1) * all_bins + bins, 3 * all_bins).float()
        for half in range(2):  # the two fine frames of a frame
            rows = torch.arange(2 * width)
            self.down.weight[half * 2 * width + rows] = F.one_hot(half * fine_dim + rows, 2 * fine_dim).float()
        rows = torch.arange(4 * width)
        self.project.weight[rows] = F.one_hot(rows, self.project.in_features).float()

    def before(self, waveform: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """[B, L] -> [B, T, frame_dim]."""
        waveform = F.pad(waveform, (0, -waveform.shape[1] % self.rows_in))
        frames = None if num_samples is None else -(-num_samples // self.rows_in)
        mask = frame_mask(frames, waveform.shape[1] // self.rows_in, self.embed.weight)
        fine_mask = _twice(mask)
        real, imag = self.stft(waveform)
        magnitude = (real.square() + imag.square() + 1e-9).sqrt()
        compressed = 4.0 * magnitude.pow(-0.7)
        # Shifted and scaled so that speech gives all three about unit variance.
        features = torch.cat([0.4 * magnitude.log() + 2.0, real * compressed, imag * compressed], -1)
        x = self.embed_norm(self.embed(features.to(self.embed.weight.dtype)))
        for block in self.fine:
            x = block(x, fine_mask)
        y: Tensor = self.down(x.unflatten(1, (-1, 2)).flatten(2))
        for block in self.frame:
            y = block(y, mask)
        return y

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """[B, T, frame_dim] -> latents [B, T, D], those of RVQ-1 first if it has channels of its own."""
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
        self.coded_n_fft = c.n_fft  #: STFT size of the encoder, whose bins the initial latents are
        self.content_dimension = config.content_dimension  #: channels of RVQ-1, before those of the bins
        if not self.embed.weight.is_meta:
            self._start_as_transform_codec()

    @torch.no_grad()
    def _start_as_transform_codec(self) -> None:
        """Initialize the weights as the inverse of the encoder's initial weights: latents to phases of low bins."""
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
        # Every second bin was coded; the ones between are their neighbours' mean. A shorter inverse has fewer bins.
        ratio = self.stft.n_fft / self.coded_n_fft
        every_bin = torch.arange(int((2 * width + 1) * ratio) + 1)
        nearness = (1 - (every_bin[:, None] / ratio - bins).abs() / 2).clamp_min(0.0)
        for part in range(2):
            rows = (part + 1) * all_bins + every_bin
            self.head.weight[rows] = 0.0
            self.head.weight[rows, part * width : (part + 1) * width] = nearness
        # As quiet as speech is on average: from magnitudes of 1, the first steps would do nothing but turn it down.
        self.head.bias[:all_bins] = -6.0

    def before(self, latents: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T, frame_dim]."""
        x: Tensor = self.embed(latents.to(self.embed.weight.dtype))
        return x

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """[B, T, frame_dim] -> speech [B, T * hop_length]."""
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
        # The phase is the direction of a plane vector: no angle, so no wrapping.
        scale = log_magnitude.clamp(max=6.0).exp() * (cosine.square() + sine.square() + 1e-6).rsqrt()
        return self.stft.inverse(cosine * scale, sine * scale, fine_mask)


class PhaseNoise(Float32Module):
    """Adds a vector of length `length` and random direction to each phase vector, before its direction is taken.

    Where the decoder knows the phase, its vector is long, and the noise turns it by little. Where it does not, as in
    fricatives, the phase is random; without noise it would repeat from frame to frame and be heard as a tone at the
    frame rate. The direction follows from the frame's number and the bin alone, so decoding repeats bit for bit, whole
    or in chunks.
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
        """cosine, sine: [B, F, bins], frames first, first + 1, ... of a clip."""
        rows = (first + torch.arange(cosine.shape[1], device=cosine.device)) % self.PERIOD
        return cosine + self.directions[0, rows], sine + self.directions[1, rows]


def _hash(numbers: Tensor) -> Tensor:
    """A number in [0, 1) for each of some whole numbers, without visible order: two rounds of multiply and xor-shift,
    in 32 bits. No generator, whose numbers may change with the version of torch."""
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
    """Return `count` blocks. In a causal codec they divide `look_ahead` frames among them; the first ones get more."""
    parts = [(look_ahead + count - 1 - i) // count if c.causal else None for i in range(count)]
    return nn.ModuleList(ConvNeXtBlock(dim, c.expansion, c.kernel_size, part) for part in parts)


def _recurrence(c: SpectralConfig) -> BiLSTM | LSTM:
    return LSTM(c.frame_dim, c.frame_dim) if c.causal else BiLSTM(c.frame_dim, c.frame_dim // 2)


def _reach(frame: Iterable[nn.Module], fine: Iterable[nn.Module], *windows: float) -> tuple[int, int]:
    """Frames at 50 Hz before and after the current one that blocks at 50 and 100 Hz and STFT frames together see.

    windows: what STFT frames add before and after, in frames at 50 Hz.
    """
    left, right = (
        sum(block.padding[side] for block in frame) + sum(block.padding[side] for block in fine) / 2  # type: ignore[index, misc]
        for side in (0, 1)
    )
    return math.ceil(left + windows[0]), math.ceil(right + windows[1])


def _twice(mask: Tensor | None) -> Tensor | None:
    """The mask of two 100 Hz frames for each 50 Hz frame."""
    return None if mask is None else mask.repeat_interleave(2, 1)
