"""Training of the quantizer's codebooks. With several processes, every process has the same codebooks at every step.

Everything in training/ that reads or writes codebook vectors is in this file. The trainer calls `start` once, `update`
after each quantized step, and saves `state_dict`; a quantizer of another kind needs its own class with these methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vocable.codec.rvq import Quantized, ResidualVectorQuantizer
from vocable.training.processes import rank, sum_over_processes, world_size
from vocable.training.recipe import Quantizer


class CodebookEMA:
    """Moves the codebooks: each entry follows the mean of the vectors that chose it.

    An exponential moving average with Laplace-smoothed counts (van den Oord et al. 2017, appendix A.1). An entry whose
    count falls below `dead_share` of an equal distribution is dead: it is replaced by a random vector of the batch, as
    in SoundStream.
    """

    def __init__(self, quantizer: ResidualVectorQuantizer, decay: float = 0.99, dead_share: float = 0.05) -> None:
        self.quantizer, self.decay, self.dead_share = quantizer, decay, dead_share
        books = quantizer.codebooks
        self.counts = torch.ones(books.shape[:2], device=books.device)
        self.sums = books.clone()

    def start(self, latents: Iterable[Tensor], recipe: Quantizer, generator: torch.Generator) -> None:
        """Set the codebooks by k-means on latents of many batches: one batch has fewer frames than a codebook entries.

        latents: float32 [N, D] for each batch, the same in every process; as many are taken as `recipe` asks for.
        """
        wanted = recipe.kmeans_vectors * self.quantizer.codebooks.shape[1]
        collected: list[Tensor] = []
        for batch in latents:
            collected.append(batch)
            if sum(map(len, collected)) >= wanted:
                break
        self.kmeans_start(torch.cat(collected), recipe.kmeans_iterations, generator)

    @torch.no_grad()
    def kmeans_start(self, latents: Tensor, iterations: int, generator: torch.Generator) -> None:
        """Set every codebook by k-means on its layer's residuals of `latents` [N, D], the same in every process.

        Raises ValueError if N is less than the codebook size.
        """
        books = self.quantizer.codebooks
        size = books.shape[1]
        if len(latents) < size:
            raise ValueError(f"k-means needs at least {size} latents, got {len(latents)}")
        residual, rest = self.quantizer.inputs(latents.float())
        for layer in range(len(books)):
            chosen = torch.randperm(len(residual), generator=generator)[:size].to(residual.device)
            books[layer] = residual[chosen]
            for _ in range(iterations):
                counts, sums = self._counts_and_sums(residual, self.quantizer.nearest(residual, layer))
                # An entry that no vector chose stays where it is.
                books[layer] = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], books[layer])
            codes = self.quantizer.nearest(residual, layer)
            residual = self.quantizer.above(layer, residual, books[layer][codes], rest)
        self.counts.fill_(1.0)
        self.sums.copy_(books)

    @torch.no_grad()
    def update(self, quantized: Sequence[Quantized], generator: torch.Generator) -> int:
        """Move the codebooks by one step and return the number of dead entries that were replaced.

        quantized: the quantizer's outputs for this process's micro-batches. generator: in the same state in every
        process.
        """
        books = self.quantizer.codebooks
        size = books.shape[1]
        vectors = torch.cat([q.residuals.flatten(1, 2) for q in quantized], 1)  # [K, N, D]
        codes = torch.cat([q.codes.transpose(0, 1).flatten(1) for q in quantized], 1)  # [K, N]
        by_layer = [self._counts_and_sums(v, c) for v, c in zip(vectors, codes, strict=True)]
        # Counts and sums are concatenated, so that processes exchange one tensor.
        both = sum_over_processes(torch.stack([torch.cat([n[:, None], s], 1) for n, s in by_layer]))
        counts, sums = both[..., 0], both[..., 1:]
        # Counts are scaled so that an equal distribution over entries has a count of 1 at any batch size.
        scale = size / (vectors.shape[1] * world_size())
        self.counts.lerp_(counts * scale, 1 - self.decay)
        self.sums.lerp_(sums * scale, 1 - self.decay)
        total = self.counts.sum(1, keepdim=True)
        smoothed = (self.counts + 1e-5) / (total + size * 1e-5) * total
        books.copy_(self.sums / smoothed[..., None])
        dead = (self.counts < self.dead_share).nonzero()
        if len(dead):
            layers, entries = dead.unbind(1)
            replacements = self._random_vectors(vectors, layers, generator)
            books[layers, entries] = replacements
            self.sums[layers, entries] = replacements
            self.counts[layers, entries] = 1.0
        return len(dead)

    def _random_vectors(self, vectors: Tensor, layers: Tensor, generator: torch.Generator) -> Tensor:
        """For each layer in `layers` [n], draw one of the vectors [K, N, D] of all processes: [n, D]."""
        own_count = vectors.shape[1]
        chosen = torch.randint(own_count * world_size(), (len(layers),), generator=generator).to(vectors.device)
        is_own = chosen // own_count == rank()
        return sum_over_processes(vectors[layers, chosen % own_count] * is_own[:, None])

    def _counts_and_sums(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of vectors [M, D] that chose each of the N entries, [N], and their sum, [N, D]."""
        size, dimension = self.quantizer.codebooks.shape[1:]
        counts = torch.zeros(size, device=vectors.device).index_add_(0, codes, torch.ones_like(vectors[:, 0]))
        return counts, torch.zeros(size, dimension, device=vectors.device).index_add_(0, codes, vectors)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moving averages: counts [K, N] and sums [K, N, D]. The codebooks are in the model's own state."""
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `state_dict` returned."""
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
