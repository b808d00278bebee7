"""How the codebooks move in training. One process or many: every process holds the same books at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vocable.codec.rvq import Quantized, ResidualVectorQuantizer
from vocable.training.processes import rank, sum_over_processes, world_size


class CodebookEMA:
    """Moves the codebooks: each entry follows the mean of the vectors that chose it.

    An exponential moving average with Laplace-smoothed counts (van den Oord et al. 2017, appendix A.1). An entry whose
    share falls below `dead_share` of an even share is dead and takes a random vector of the batch (SoundStream).
    """

    def __init__(self, quantizer: ResidualVectorQuantizer, decay: float = 0.99, dead_share: float = 0.05) -> None:
        self.quantizer, self.decay, self.dead_share = quantizer, decay, dead_share
        books = quantizer.codebooks
        self.counts = torch.ones(books.shape[:2], device=books.device)
        self.sums = books.clone()

    @torch.no_grad()
    def kmeans_start(self, latents: Tensor, iterations: int, generator: torch.Generator) -> None:
        """Set every codebook by k-means on the residuals of `latents` [N, D], N at least the codebook size.

        In each of several processes: the same latents, those of all.
        """
        books = self.quantizer.codebooks
        if len(latents) < books.shape[1]:
            raise ValueError(f"k-means needs at least {books.shape[1]} latents, got {len(latents)}")
        residual, rest = self.quantizer.inputs(latents.float())
        for k in range(len(books)):
            pick = torch.randperm(len(residual), generator=generator)[: books.shape[1]].to(residual.device)
            books[k] = residual[pick]
            for _ in range(iterations):
                counts, sums = self._assigned(residual, self.quantizer.nearest(residual, k))
                # An entry that nobody chose stays where it is.
                books[k] = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], books[k])
            codes = self.quantizer.nearest(residual, k)
            residual = self.quantizer.above(k, residual, books[k][codes], rest)
        self.counts.fill_(1.0)
        self.sums.copy_(books)

    @torch.no_grad()
    def update(self, parts: Sequence[Quantized], generator: torch.Generator) -> int:
        """One step from all frames of a batch, in the parts that it was worked through in; returns the number of dead
        entries replaced. Every process gives its own parts, and a generator in the same state."""
        books = self.quantizer.codebooks
        size = books.shape[1]
        vectors = torch.cat([part.residuals.flatten(1, 2) for part in parts], 1)  # [K, N, D]
        codes = torch.cat([part.codes.transpose(0, 1).flatten(1) for part in parts], 1)  # [K, N]
        assigned = [self._assigned(v, c) for v, c in zip(vectors, codes, strict=True)]
        # Counts and sums side by side: one exchange between processes.
        both = sum_over_processes(torch.stack([torch.cat([n[:, None], s], 1) for n, s in assigned]))
        counts, sums = both[..., 0], both[..., 1:]
        # Counts are kept as a share of the batch times the codebook size: 1 is an even share at any batch size.
        scale = size / (vectors.shape[1] * world_size())
        self.counts.lerp_(counts * scale, 1 - self.decay)
        self.sums.lerp_(sums * scale, 1 - self.decay)
        total = self.counts.sum(1, keepdim=True)
        smoothed = (self.counts + 1e-5) / (total + size * 1e-5) * total
        books.copy_(self.sums / smoothed[..., None])
        dead = (self.counts < self.dead_share).nonzero()
        if len(dead):
            layer, entry = dead.unbind(1)
            taken = self._random_vectors(vectors, layer, generator)
            books[layer, entry] = taken
            self.sums[layer, entry] = taken
            self.counts[layer, entry] = 1.0
        return len(dead)

    def _random_vectors(self, vectors: Tensor, layers: Tensor, generator: torch.Generator) -> Tensor:
        """A random one of all processes' vectors [K, N, D] for each of `layers` [n]: [n, D]."""
        here = vectors.shape[1]
        pick = torch.randint(here * world_size(), (len(layers),), generator=generator).to(vectors.device)
        mine = pick // here == rank()
        return sum_over_processes(vectors[layers, pick % here] * mine[:, None])

    def _assigned(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How many vectors chose each entry, and their sum: [N], [N, D]."""
        size, dimension = self.quantizer.codebooks.shape[1:]
        counts = torch.zeros(size, device=vectors.device).index_add_(0, codes, torch.ones_like(vectors[:, 0]))
        return counts, torch.zeros(size, dimension, device=vectors.device).index_add_(0, codes, vectors)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
