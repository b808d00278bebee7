from __future__ import annotations

import pytest
import torch

from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.training.codebooks import CodebookEMA


def clustered(count: int, seed: int = 0) -> torch.Tensor:
    """Vectors around 64 centres."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(64, 8, generator=g)
    return centres[torch.randint(64, (count,), generator=g)] + 0.05 * torch.randn(count, 8, generator=g)


def perplexity(codes: torch.Tensor, size: int) -> float:
    shares = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
    return float(torch.special.entr(shares).sum().exp())


def test_kmeans_start_uses_every_codebook(quantizer: ResidualVectorQuantizer) -> None:
    ema, latents = CodebookEMA(quantizer), clustered(2000)
    before = (latents - quantizer.decode(quantizer.encode(latents[None], 4))[0]).square().mean()
    ema.kmeans_start(latents, 10, torch.Generator().manual_seed(0))
    codes = quantizer.encode(latents[None], 4)
    after = (latents - quantizer.decode(codes)[0]).square().mean()
    assert after < before / 4
    assert all(perplexity(codes[:, k], 32) > 16 for k in range(4))
    with pytest.raises(ValueError, match="at least 32"):
        ema.kmeans_start(latents[:31], 10, torch.Generator())


def test_updates_follow_the_data_and_revive_dead_entries(quantizer: ResidualVectorQuantizer) -> None:
    ema = CodebookEMA(quantizer, decay=0.9)
    quantizer.codebooks[:] = 50.0 + quantizer.codebooks  # nobody will choose these
    generator = torch.Generator().manual_seed(0)
    replaced = 0
    for step in range(200):
        latents = clustered(300, seed=step).view(3, 100, 8)
        replaced += ema.update([quantizer(latents)], generator)
    assert replaced > 0
    latents = clustered(2000, seed=999)
    codes = quantizer.encode(latents[None], 4)
    assert perplexity(codes[:, 0], 32) > 16
    assert (latents - quantizer.decode(codes)[0]).square().mean() < 0.2 * latents.square().mean()


def test_an_entry_becomes_the_mean_of_its_vectors(quantizer: ResidualVectorQuantizer) -> None:
    ema = CodebookEMA(quantizer, decay=0.0, dead_share=0.0)
    latents = torch.randn(1, 400, 8)
    quantized = quantizer(latents)
    ema.update([quantized], torch.Generator())
    chosen = quantized.codes[0, 0]
    entry = int(chosen.mode().values)
    torch.testing.assert_close(quantizer.codebooks[0, entry], latents[0][chosen == entry].mean(0), atol=1e-3, rtol=1e-2)


def test_a_batch_in_parts_moves_the_books_as_the_whole_does(quantizer: ResidualVectorQuantizer) -> None:
    torch.manual_seed(1)
    whole, parts = CodebookEMA(quantizer), CodebookEMA(ResidualVectorQuantizer(4, 32, 8))
    parts.quantizer.load_state_dict(quantizer.state_dict())
    parts.sums.copy_(whole.sums)
    for step in range(20):
        latents = clustered(400, seed=step).view(4, 100, 8)
        seeded = [torch.Generator().manual_seed(step) for _ in range(2)]
        replaced = whole.update([whole.quantizer(latents)], seeded[0])
        assert parts.update([parts.quantizer(latents[:1]), parts.quantizer(latents[1:])], seeded[1]) == replaced
    torch.testing.assert_close(parts.quantizer.codebooks, whole.quantizer.codebooks)
