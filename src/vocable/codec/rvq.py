"""The residual vector quantizer: K codebooks, each of which quantizes what the ones before it left over.

SpeechTokenizer, section 3.1 (arXiv 2308.16692), after SoundStream (2107.03312). Everything here runs in float32,
whatever the rest of the model runs in: codes must not depend on the precision around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.layers import no_autocast


class Float32Module(nn.Module):
    """A module whose tensors follow `.to(device)` but stay float32 under `.to(dtype)`, `.half()` and `.bfloat16()`."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Module:
        def device_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(device_only, recurse)  # type: ignore[no-untyped-call]
        return self


@dataclass(eq=False)
class Quantized:
    """The result of a training pass through the quantizer. Shapes: latents are [B, T, D]."""

    latents: Tensor  #: sum over the active layers, straight-through to the input
    content: Tensor  #: the input of RVQ-1
    first: Tensor  #: RVQ-1 alone, straight-through: what distillation acts on
    codes: Tensor  #: int64 [B, K, T]
    residuals: Tensor  #: [K, B, T, D], the input of each layer, detached
    commitment_loss: Tensor  #: scalar


class ResidualVectorQuantizer(Float32Module):
    """K codebooks of `codebook_size` entries in D dimensions.

    content_dimension: RVQ-1 quantizes the first so many channels of the latents and the layers above the rest; 0: all
    layers quantize all channels. Codebook vectors have D channels all the same, 0 where they say nothing, so that their
    sum is what the decoder takes. Nothing that is reconstructed pulls at RVQ-1 then: its vectors reach the decoder as
    constants.

    The codebooks are a buffer: no gradient reaches them. Training moves them with `CodebookEMA`.
    """

    codebooks: Tensor

    def __init__(self, num_quantizers: int, codebook_size: int, dimension: int, content_dimension: int = 0) -> None:
        super().__init__()
        self.num_quantizers, self.content_dimension = num_quantizers, content_dimension
        # Random, not zero: with all-zero codebooks every code is 0 and any comparison of codes passes.
        edge = (3 / dimension) ** 0.5
        books = torch.empty(num_quantizers, codebook_size, dimension).uniform_(-edge, edge)
        self.register_buffer("codebooks", books)

    def encode(self, latents: Tensor, last: int) -> Tensor:
        """Codes of the first `last` layers: [B, T, D] -> int64 [B, last, T]. Layers above cost nothing."""
        with no_autocast(latents.device):
            residual, rest = self.inputs(latents.float())
            rows = []
            for k in range(last):
                codes = self.nearest(residual, k)
                residual = self.above(k, residual, F.embedding(codes, self.codebooks[k]), rest)
                rows.append(codes)
        return torch.stack(rows, 1)

    def content(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantize with RVQ-1 alone, in training: latents [B, T, D] -> its input and its vectors, straight-through,
        both float32 [B, T, D], its codes, int64 [B, T], and `distances` of its input, float32 [B, T, N]."""
        with no_autocast(latents.device):
            content, _ = self.inputs(latents.float())
            distances = self.distances(content, 0)
            codes = distances.argmin(-1)
            return content, content + (F.embedding(codes, self.codebooks[0]) - content).detach(), codes, distances

    def decode(self, codes: Tensor, first: int = 0) -> Tensor:
        """Sum of the codebook vectors of layers first, first + 1, ...: int64 [B, K', T] -> [B, T, D]."""
        return torch.stack([F.embedding(codes[:, i], self.codebooks[first + i]) for i in range(codes.shape[1])]).sum(0)

    def forward(self, latents: Tensor, mask: Tensor | None = None, num_layers: Tensor | None = None) -> Quantized:
        """Quantize for training.

        latents: [B, T, D]. mask: [B, T, 1], 1 on valid frames (None: all). num_layers: int [B], how many layers each
        clip is decoded from (quantizer dropout; None: all of them).
        """
        with no_autocast(latents.device):
            return self._forward(latents.float(), mask, num_layers)

    def _forward(self, latents: Tensor, mask: Tensor | None, num_layers: Tensor | None) -> Quantized:
        weight = torch.ones_like(latents[..., :1]) if mask is None else mask.to(latents.dtype)
        frames = weight.sum().clamp_min(1.0)
        residual, rest = self.inputs(latents)
        content, total = residual, torch.zeros_like(residual)
        first, rows, residuals = residual, [], []
        commitment = latents.new_zeros(())
        for k in range(self.num_quantizers):
            codes = self.nearest(residual.detach(), k)
            quantized = F.embedding(codes, self.codebooks[k])
            rows.append(codes)
            residuals.append(residual.detach())
            # Each layer's error reaches the encoder: what is taken off is the codebook entry, a constant. (EnCodec
            # takes off a straight-through copy, whose gradient cancels: only its first layer commits.)
            active = weight if num_layers is None else weight * (num_layers > k).view(-1, 1, 1)
            commitment = commitment + ((residual - quantized).square().mean(-1, keepdim=True) * active).sum() / frames
            if k == 0:
                first = content + (quantized - content).detach()
            total = total + (quantized if num_layers is None else quantized * (num_layers > k).view(-1, 1, 1))
            residual = self.above(k, residual, quantized, rest)
        through = content if rest is None else rest
        if rest is not None and num_layers is not None:  # RVQ-1 alone says nothing of the other channels
            through = through * (num_layers > 1).view(-1, 1, 1)
        return Quantized(
            latents=through + (total - through).detach(),
            content=content,
            first=first,
            codes=torch.stack(rows, 1),
            residuals=torch.stack(residuals),
            commitment_loss=commitment,
        )

    def inputs(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """What layer 1 quantizes, and what the layers above quantize if that is not what layer 1 left over."""
        c = self.content_dimension
        if not c:
            return latents, None
        return F.pad(latents[..., :c], (0, latents.shape[-1] - c)), F.pad(latents[..., c:], (c, 0))

    def above(self, k: int, residual: Tensor, quantized: Tensor, rest: Tensor | None) -> Tensor:
        """Return the input of the layer above layer k: the residual of layer k, or `rest` (of `inputs`) above layer 1
        where RVQ-1 has channels of its own."""
        return rest if rest is not None and k == 0 else residual - quantized

    def nearest(self, vectors: Tensor, k: int) -> Tensor:
        """Index of the nearest entry of codebook k: [B, T, D] -> int64 [B, T]."""
        return self.distances(vectors, k).argmin(-1)

    def distances(self, vectors: Tensor, k: int) -> Tensor:
        """Squared distances to the entries of codebook k less |x|^2, which is the same for all entries:
        [..., D] -> [..., N]."""
        book = self.codebooks[k]
        scores = torch.addmm(book.square().sum(1), vectors.reshape(-1, vectors.shape[-1]), book.T, alpha=-2.0)
        return scores.view(*vectors.shape[:-1], len(book))
