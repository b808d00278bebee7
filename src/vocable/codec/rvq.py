"""The residual vector quantizer: K layers, each of which quantizes the residual of the layers before it.

SpeechTokenizer, section 3.1 (arXiv 2308.16692), after SoundStream (2107.03312). The quantizer always runs in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.layers import no_autocast


class Float32Module(nn.Module):
    """Base class of modules whose tensors stay float32 under `.to(dtype)`, `.half()` and `.bfloat16()`."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Module:
        def device_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(device_only, recurse)  # type: ignore[no-untyped-call]
        return self


@dataclass(eq=False)
class Quantized:
    """The result of a training pass through the quantizer."""

    latents: Tensor  #: [B, T, D], sum of the entries over the active layers, straight-through to the input
    content: Tensor  #: [B, T, D], the input of RVQ-1
    first: Tensor  #: [B, T, D], the entries of RVQ-1, straight-through; distillation uses them
    codes: Tensor  #: int64 [B, K, T]
    residuals: Tensor  #: [K, B, T, D], the input of each layer, detached
    commitment_loss: Tensor  #: scalar


class ResidualVectorQuantizer(Float32Module):
    """K codebooks of `codebook_size` entries in D dimensions.

    content_dimension: the number of latent channels, from the first, that only RVQ-1 quantizes; the layers above
    quantize the other channels. 0: all layers quantize all channels. Codebook entries always have D channels, with
    zeros in the channels that their layer does not quantize, and the decoder's input is their sum. An RVQ-1 with its
    own channels gets no gradient from reconstruction: its entries are constants to the decoder.

    The codebooks are a buffer without gradients; in training `CodebookEMA` updates them.
    """

    codebooks: Tensor

    def __init__(self, num_quantizers: int, codebook_size: int, dimension: int, content_dimension: int = 0) -> None:
        super().__init__()
        self.num_quantizers, self.content_dimension = num_quantizers, content_dimension
        # Random, not zero: with zero codebooks every code is 0, and tests that compare codes always pass.
        edge = (3 / dimension) ** 0.5
        books = torch.empty(num_quantizers, codebook_size, dimension).uniform_(-edge, edge)
        self.register_buffer("codebooks", books)

    def norms(self) -> Tensor:
        """Return the squared norms of the codebook entries, float32 [K, N]."""
        return self.codebooks.square().sum(2)

    def encode(self, latents: Tensor, last: int, norms: Tensor | None = None) -> Tensor:
        """Quantize latents with the first `last` layers: [B, T, D] -> int64 [B, last, T].

        norms: the result of `norms`, for calls with few frames, where it takes most of the time (None: computed).
        """
        norms = self.norms() if norms is None else norms
        with no_autocast(latents.device):
            residual, rest = self.inputs(latents.float().flatten(0, 1))
            rows = []
            for k, (book, norm) in enumerate(zip(self.codebooks[:last].unbind(), norms.unbind(), strict=False)):
                codes = self.nearest(residual, k, norm)
                residual = self.above(k, residual, F.embedding(codes, book), rest)
                rows.append(codes)
        return torch.stack(rows).view(last, *latents.shape[:2]).transpose(0, 1)

    def content(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantize latents [B, T, D] with RVQ-1 only, in training.

        Return its input and its entries, straight-through, both float32 [B, T, D], its codes, int64 [B, T], and the
        `distances` of its input, float32 [B, T, N].
        """
        with no_autocast(latents.device):
            content, _ = self.inputs(latents.float())
            distances = self.distances(content, self.codebooks[0])
            codes = distances.argmin(-1)
            return content, content + (F.embedding(codes, self.codebooks[0]) - content).detach(), codes, distances

    def decode(self, codes: Tensor, first: int = 0) -> Tensor:
        """Sum the entries of the codes of layers `first`, `first` + 1, ...: int64 [B, K', T] -> [B, T, D]."""
        rows, books = codes.unbind(1), self.codebooks[first:].unbind()
        return torch.stack([F.embedding(row, book) for row, book in zip(rows, books, strict=False)]).sum(0)

    def forward(self, latents: Tensor, mask: Tensor | None = None, num_layers: Tensor | None = None) -> Quantized:
        """Quantize for training.

        latents: [B, T, D]. mask: [B, T, 1], 1 on valid frames (None: all). num_layers: int [B], the number of layers
        that each clip is decoded from (quantizer dropout; None: all).
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
            # The subtracted codebook entry is a constant, so each layer's error has a gradient to the encoder. EnCodec
            # subtracts a straight-through copy, whose gradient cancels it in all layers but the first.
            active = weight if num_layers is None else weight * (num_layers > k).view(-1, 1, 1)
            commitment = commitment + ((residual - quantized).square().mean(-1, keepdim=True) * active).sum() / frames
            if k == 0:
                first = content + (quantized - content).detach()
            total = total + (quantized if num_layers is None else quantized * (num_layers > k).view(-1, 1, 1))
            residual = self.above(k, residual, quantized, rest)
        through = content if rest is None else rest
        if rest is not None and num_layers is not None:  # RVQ-1 does not quantize the other channels
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
        """Return the input of RVQ-1 and the input of layer 1, or None if that is the residual of RVQ-1."""
        c = self.content_dimension
        if not c:
            return latents, None
        return F.pad(latents[..., :c], (0, latents.shape[-1] - c)), F.pad(latents[..., c:], (c, 0))

    def above(self, k: int, residual: Tensor, quantized: Tensor, rest: Tensor | None) -> Tensor:
        """Return the input of layer k + 1: `rest` (from `inputs`) for k = 0 if it is not None, else the residual."""
        return rest if rest is not None and k == 0 else residual - quantized

    def nearest(self, vectors: Tensor, k: int, norms: Tensor | None = None) -> Tensor:
        """Return the index of the nearest entry of codebook k: [..., D] -> int64 [...]. norms: as in `distances`."""
        return self.distances(vectors, self.codebooks[k], norms).argmin(-1)

    def distances(self, vectors: Tensor, book: Tensor, norms: Tensor | None = None) -> Tensor:
        """Return the squared distances to the entries of a codebook [N, D], minus |x|^2: [..., D] -> [..., N].

        norms: the squared norms of the entries, [N] (None: computed).
        """
        norms = book.square().sum(1) if norms is None else norms
        scores = torch.addmm(norms, vectors.reshape(-1, vectors.shape[-1]), book.T, alpha=-2.0)
        return scores.view(*vectors.shape[:-1], len(book))
