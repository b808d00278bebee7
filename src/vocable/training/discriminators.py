"""Discriminators: multi-period and multi-scale (HiFi-GAN, arXiv 2010.05646), multi-scale STFT (EnCodec, 2210.13438).

Each takes waveforms [B, L] and returns its scores and the activations of its layers, for feature matching.
`paper_discriminators` returns a set of the paper's sizes, `slim_discriminators` and `stft_discriminators` faster ones.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Discriminator(nn.Module, ABC):
    """Base class: convolutions with leaky ReLU, the last of which returns scores."""

    layers: nn.ModuleList
    slope = 0.1  #: of the leaky ReLU

    @abstractmethod
    def view(self, waveform: Tensor) -> Tensor:
        """Convert a waveform [B, L] to the input of the first layer."""

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores [B, N] of a waveform [B, L], and the activations of all layers but the last."""
        x, features = self.view(waveform), []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), self.slope, inplace=True)  # the output of a convolution has no other use
            features.append(x)
        return self.layers[-1](x).flatten(1), features


class PeriodConv(nn.Conv2d):
    """Convolution over time with the kernel [k, 1] of HiFi-GAN's weights, over activations [B, C, period, L / period].

    HiFi-GAN has the time axis before the period. With the time axis last, and channels-last in memory, CPU kernels take
    a fraction of the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, period, L / period] along the last axis."""
        assert not isinstance(self.padding, str)
        return F.conv2d(x, self.weight.transpose(2, 3), self.bias, self.stride[::-1], self.padding[::-1])


class PeriodDiscriminator(Discriminator):
    """Discriminator of every `period`-th sample: its input is the waveform folded to [B, 1, period, L / period]."""

    def __init__(self, period: int, channels: Sequence[int] = (32, 128, 512, 1024, 1024)) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        last = len(channels) - 1
        self.layers = nn.ModuleList(
            weight_norm(PeriodConv(a, b, (5, 1), (3 if i < last else 1, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.layers.append(weight_norm(PeriodConv(widths[-1], 1, (3, 1), padding=(1, 0))))

    def view(self, waveform: Tensor) -> Tensor:
        """Fold the waveform [B, L] to [B, 1, period, L / period]."""
        padded = F.pad(waveform.unsqueeze(1), (0, -waveform.shape[1] % self.period), mode="reflect")
        folded = padded.view(len(padded), -1, self.period).transpose(1, 2).contiguous()
        # The layout of a tensor with one channel is ambiguous; these strides mark it as channels-last.
        return folded.unsqueeze(3).permute(0, 3, 1, 2)


class ScaleDiscriminator(Discriminator):
    """Discriminator of the waveform, averaged over 2 ** scale samples. Scale 0 has spectral norm, as in HiFi-GAN."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        norm = spectral_norm if scale == 0 else weight_norm
        shapes = [  # inputs, outputs, kernel, stride, groups
            (1, 128, 15, 1, 1),
            (128, 128, 41, 2, 4),
            (128, 256, 41, 2, 16),
            (256, 512, 41, 4, 16),
            (512, 1024, 41, 4, 16),
            (1024, 1024, 41, 1, 16),
            (1024, 1024, 5, 1, 1),
            (1024, 1, 3, 1, 1),
        ]
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, padding=kernel // 2, groups=groups))
            for a, b, kernel, stride, groups in shapes
        )

    def view(self, waveform: Tensor) -> Tensor:
        """Average the waveform [B, L] to [B, 1, L / 2 ** scale]."""
        x = waveform.unsqueeze(1)
        for _ in range(self.scale):
            x = F.avg_pool1d(x, 4, 2, padding=2)
        return x


class STFTDiscriminator(Discriminator):
    """Discriminator of the complex STFT, with dilations in time and strides in frequency."""

    slope = 0.2

    def __init__(self, n_fft: int, filters: int = 32) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        shapes = [  # inputs, kernel, stride in frequency, dilation in time
            (2, (3, 9), 1, 1),
            (filters, (3, 9), 2, 1),
            (filters, (3, 9), 2, 2),
            (filters, (3, 9), 2, 4),
            (filters, (3, 3), 1, 1),
        ]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, filters, k, (1, stride), padding=((k[0] // 2) * d, k[1] // 2), dilation=(d, 1)))
            for a, k, stride, d in shapes
        )
        self.layers.append(weight_norm(nn.Conv2d(filters, 1, (3, 3), padding=(1, 1))))

    def view(self, waveform: Tensor) -> Tensor:
        """Compute the STFT of the waveform [B, L]: real and imaginary parts, [B, 2, frames, bins]."""
        window: Tensor = self.window  # type: ignore[assignment]
        spectrum = torch.stft(
            waveform.float(), self.n_fft, self.n_fft // 4, window=window, center=False, return_complex=True
        )
        return torch.view_as_real(spectrum / window.square().sum().sqrt()).permute(0, 3, 2, 1)


def paper_discriminators() -> nn.ModuleList:
    """Return the set of the paper's training: five periods, three scales, five STFT resolutions."""
    return nn.ModuleList(
        [PeriodDiscriminator(p) for p in (2, 3, 5, 7, 11)]
        + [ScaleDiscriminator(s) for s in range(3)]
        + [STFTDiscriminator(n) for n in (1024, 2048, 512, 256, 128)]
    )


def slim_discriminators() -> nn.ModuleList:
    """Return a small set: together at most 0.5 GFLOP per second of audio in a forward pass."""
    return nn.ModuleList(
        [PeriodDiscriminator(p, (8, 32, 64, 64)) for p in (2, 3, 5, 7, 11)]
        + [STFTDiscriminator(n, filters=8) for n in (1024, 256)]
    )


def stft_discriminators() -> nn.ModuleList:
    """Return four STFT resolutions without periods, with 2.2 times the multiplications of `slim_discriminators`."""
    return nn.ModuleList(STFTDiscriminator(n, filters=12) for n in (2048, 1024, 512, 256))
