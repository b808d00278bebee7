"""The encoder and decoder of the paper: SEANet (arXiv 2009.02095, as in EnCodec, 2210.13438) with a recurrence.

The layout is [B, length, channels]. Viewed as an image of height 1 in channels-last layout, it needs no transpose for a
convolution, and CPUs have a fast kernel for it. `lengths` [B] (int64, on the CPU) are the valid samples or frames of
each clip. Values after a clip's end are arbitrary; every layer with a kernel longer than 1 replaces them, so the output
of a clip does not depend on its batch. The computation is that of the authors' code but for the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vocable.codec.config import CodecConfig, SEANetConfig
from vocable.codec.layers import LSTM, BiLSTM, frame_mask
from vocable.codec.staged import Staged


class ELU(nn.Module):
    """ELU in place. Every input is a padded copy, or an activation that no other layer reads."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply ELU to a tensor of any shape."""
        return F.elu(x, inplace=True)


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha with a learned alpha for each channel (Ziyin et al. 2020, arXiv 2006.08195, eq. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation: [B, L, C] -> [B, L, C]."""
        return torch.addcmul(x, (self.alpha * x).sin().square(), (self.alpha + 1e-9).reciprocal())


class Conv1d(nn.Conv1d):
    """An optional activation, then a convolution with reflection padding: [B, L, C] -> [B, ceil(L / stride), C'].

    The padding is kernel - stride samples, the smaller half at the end, and more at the end to fill the last stride.
    """

    def __init__(
        self,
        c: SEANetConfig,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, stride, dilation=dilation)
        self.activation = _activation(c, inputs) if activate else nn.Identity()
        if c.weight_norm:
            weight_norm(self)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve: [B, L, C] -> [B, ceil(L / stride), outputs]. lengths: valid rows of each clip."""
        (kernel,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        edges = (kernel - 1) * dilation + 1 - stride
        x = self.activation(_reflect(x, lengths, edges - edges // 2, edges // 2, stride))
        weight = self.weight
        if kernel == 1 or (_is_large(weight) and dilation == 1):
            return F.linear(x.unfold(1, kernel, stride).flatten(2), weight.flatten(1), self.bias)
        y = F.conv2d(_as_image(x), weight.unsqueeze(2), self.bias, (1, stride), dilation=(1, dilation))
        return _as_frames(y)


class UpConv1d(nn.ConvTranspose1d):
    """An activation, then a transposed convolution with a kernel of two strides: [B, T, C] -> [B, stride T, C']."""

    def __init__(self, c: SEANetConfig, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 2 * stride, stride)
        self.activation = _activation(c, inputs)
        if c.weight_norm:
            weight_norm(self)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Upsample: [B, T, C] -> [B, stride * T, outputs]. lengths: valid rows of each clip."""
        mask = frame_mask(lengths, x.shape[1], x)
        x = self.activation(x if mask is None else x * mask)
        (stride,), weight = self.stride, self.weight
        if _is_large(weight):
            # The output of a frame is two strides long; the second stride overlaps the first one of the next frame.
            first, second = (x @ weight.flatten(1)).view(*x.shape[:2], -1, 2, stride).unbind(3)
            y = F.pad(first, (0, 0, 0, 0, 0, 1)) + F.pad(second, (0, 0, 0, 0, 1, 0))
            y = y.transpose(2, 3).flatten(1, 2)
        else:
            y = _as_frames(F.conv_transpose2d(_as_image(x), weight.unsqueeze(2), stride=(1, stride)))
        trimmed: Tensor = y[:, stride - stride // 2 : y.shape[1] - stride // 2]
        assert self.bias is not None
        return trimmed.add_(self.bias)


class Residual(nn.Module):
    """A residual block: a convolution to half the channels and a pointwise one, added to a pointwise shortcut."""

    def __init__(self, c: SEANetConfig, channels: int, dilation: int) -> None:
        super().__init__()
        self.shortcut = Conv1d(c, channels, channels, 1, activate=False)
        self.squeeze = Conv1d(c, channels, channels // 2, c.residual_kernel_size, dilation=dilation)
        self.expand = Conv1d(c, channels // 2, channels, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Run the block: [B, L, C] -> [B, L, C]. lengths: valid rows of each clip."""
        hidden = self.expand(self.squeeze(x, lengths), lengths)
        total: Tensor = hidden.add_(self.shortcut(x, lengths))
        return total


class ResidualLSTM(nn.Module):
    """LSTM layers with `channels` hidden channels in each direction, and one residual connection around all layers."""

    def __init__(self, channels: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        wide = 2 * channels if bidirectional else channels
        widths = [channels] + [wide] * (layers - 1)
        self.layers = nn.ModuleList(BiLSTM(w, channels) if bidirectional else LSTM(w, channels) for w in widths)

    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the residual: the sum of the recurrence's input `x` and output `y`."""
        return y + (torch.cat([x, x], -1) if self.bidirectional else x)


class Down(nn.Module):
    """Residual blocks, then a strided convolution to twice the channels."""

    def __init__(self, c: SEANetConfig, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.residuals = _residuals(c, channels)
        self.down = Conv1d(c, channels, 2 * channels, 2 * stride, stride)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the stage: [B, L, C] -> [B, ceil(L / stride), 2 C], with the new lengths."""
        for residual in self.residuals:
            x = residual(x, lengths)
        return self.down(x, lengths), -(-lengths // self.stride)


class Up(nn.Module):
    """A transposed convolution to half the channels, then residual blocks."""

    def __init__(self, c: SEANetConfig, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.up = UpConv1d(c, channels, channels // 2, stride)
        self.residuals = _residuals(c, channels // 2)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the stage: [B, T, C] -> [B, stride * T, C / 2], with the new lengths."""
        x, lengths = self.up(x, lengths), lengths * self.stride
        for residual in self.residuals:
            x = residual(x, lengths)
        return x, lengths


class _Recurrent(Staged):
    """Base class of encoder and decoder, with the recurrence that both have."""

    recurrence: ResidualLSTM

    @property
    def recurrent_layers(self) -> list[nn.Module]:
        return list(self.recurrence.layers)

    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        return self.recurrence.skip(x, y)


class SEANetEncoder(_Recurrent):
    """Speech [B, L] -> latents float32 [B, ceil(L / hop_length), D]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        c = config.seanet
        assert c is not None
        widths = [c.n_filters * 2**i for i in range(len(c.strides) + 1)]
        self.first = Conv1d(c, 1, widths[0], c.kernel_size, activate=False)
        self.stages = nn.ModuleList(Down(c, w, s) for w, s in zip(widths[:-1], reversed(c.strides), strict=True))
        self.recurrence = ResidualLSTM(widths[-1], c.lstm_layers, c.bidirectional)
        self.last = Conv1d(c, (1 + c.bidirectional) * widths[-1], config.dimension, c.kernel_size)
        self.rows_in, self.rows_out = config.hop_length, 1
        reach = math.ceil(_reach(c, c.strides[::-1]) / config.hop_length)
        self.before_context, self.after_context = (reach, reach), (c.kernel_size - 1, c.kernel_size - 1)

    def before(self, waveform: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, L] -> [B, T, C]."""
        lengths = _full(waveform) if num_samples is None else num_samples
        x: Tensor = self.first(waveform.unsqueeze(2).to(next(self.parameters()).dtype), lengths)
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        return x

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """Run the stage after the recurrence: [B, T, 2 C] -> latents [B, T, D]."""
        latents: Tensor = self.last(x, _full(x) if num_frames is None else num_frames)
        return latents.float()


class SEANetDecoder(_Recurrent):
    """Latents [B, T, D] -> speech float32 [B, T * hop_length]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        c = config.seanet
        assert c is not None
        widths = [c.n_filters * 2**i for i in range(len(c.strides), -1, -1)]
        self.first = Conv1d(c, config.dimension, widths[0], c.kernel_size, activate=False)
        self.recurrence = ResidualLSTM(widths[0], c.lstm_layers, bidirectional=False)
        self.stages = nn.ModuleList(Up(c, w, s) for w, s in zip(widths[:-1], c.strides, strict=True))
        self.last = Conv1d(c, widths[-1], 1, c.kernel_size)
        self.rows_in, self.rows_out = 1, config.hop_length
        reach = math.ceil(_reach(c, c.strides[::-1]) / config.hop_length)
        self.before_context, self.after_context = (c.kernel_size - 1, c.kernel_size - 1), (reach, reach)

    def before(self, latents: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, T, D] -> [B, T, C]."""
        lengths = _full(latents) if num_frames is None else num_frames
        x: Tensor = self.first(latents.to(next(self.parameters()).dtype), lengths)
        return x

    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """Run the stage after the recurrence: [B, T, C] -> speech [B, T * hop_length]."""
        lengths = _full(x) if num_frames is None else num_frames
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        waveform: Tensor = self.last(x, lengths).squeeze(2)
        return waveform.float()


def _full(x: Tensor) -> Tensor:
    """Return the lengths [B] of clips without padding."""
    return torch.full((len(x),), x.shape[1], device="cpu")


def _reach(c: SEANetConfig, strides: Sequence[int]) -> int:
    """Return the context on each side, in samples, of the convolutions at all rates. strides[0] is that at the sample
    rate."""
    reach, samples = 2 * (c.kernel_size - 1), 1  # context of the first and last convolution; samples per row
    for stride in strides:
        for j in range(c.residual_layers):
            reach += (c.residual_kernel_size - 1) * c.dilation_base**j * samples
        reach += 2 * stride * samples
        samples *= stride
    return reach


def _activation(c: SEANetConfig, channels: int) -> nn.Module:
    return Snake(channels) if c.activation == "Snake" else ELU()


def _residuals(c: SEANetConfig, channels: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(c, channels, c.dilation_base**j) for j in range(c.residual_layers))


def _is_large(weight: Tensor) -> bool:
    """Return whether a matrix product is faster than a convolution kernel. On a CPU the kernel first packs the weight,
    which takes longer than the product itself for the few frames at the lowest rate."""
    return weight.device.type == "cpu" and weight.numel() >= 2**22


def _as_image(x: Tensor) -> Tensor:
    """Return a view of [B, L, C] as [B, C, 1, L], whose memory has channels-last layout."""
    return x.transpose(1, 2).unsqueeze(2)


def _as_frames(image: Tensor) -> Tensor:
    """Return a view of [B, C, 1, L] as [B, L, C]."""
    return image.squeeze(2).transpose(1, 2)


def _reflect(x: Tensor, lengths: Tensor, left: int, right: int, stride: int) -> Tensor:
    """Pad each clip by reflection: [B, L, C] -> [B, left + L' + right, C], where L' is L rounded up to whole strides.

    A clip that is too short to be reflected is first padded with zeros, as in the authors' code. Values after a clip's
    right padding are arbitrary.
    """
    width = x.shape[1]
    whole = -(-width // stride) * stride
    if left + right + whole == width:
        return x
    padded = F.pad(x, (0, 0, left, whole - width + right))
    n = lengths[:, None]
    after = right + (-n) % stride  # right padding of each clip
    beyond = torch.arange(int(after.max()), device="cpu")
    position = torch.cat(
        [torch.arange(-left, 0, device="cpu").expand(len(n), -1), n + torch.minimum(beyond, after - 1)], 1
    )
    room = torch.maximum(n, after.clamp_min(left) + 1)  # the length with zero padding
    source = position.abs()
    source = torch.where(source < room, source, 2 * (room - 1) - source)
    inside = (source < n).to(x.device)[..., None]
    mirrored = torch.where(inside, x.gather(1, _index(source.clamp(0, width - 1), x)), x.new_zeros(()))
    # Clips with less padding write their last position several times, with the same value; only one has a gradient.
    again = torch.cat([torch.zeros(len(n), left, dtype=torch.bool, device="cpu"), beyond >= after], 1).to(x.device)[
        ..., None
    ]
    mirrored = torch.where(again, mirrored.detach(), mirrored)
    return padded.scatter_(1, _index(position + left, x), mirrored)


def _index(positions: Tensor, x: Tensor) -> Tensor:
    return positions.to(x.device)[..., None].expand(-1, -1, x.shape[2])
