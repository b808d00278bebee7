from __future__ import annotations

import pytest
import torch

from vocable.codec.rvq import CodebookEMA, ResidualVectorQuantizer


def clustered(count: int, seed: int = 0) -> torch.Tensor:
    """Vectors around 64 centres."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(64, 8, generator=g)
    return centres[torch.randint(64, (count,), generator=g)] + 0.05 * torch.randn(count, 8, generator=g)


@pytest.fixture
def quantizer() -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(4, 32, 8)


def perplexity(codes: torch.Tensor, size: int) -> float:
    shares = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
    return float(torch.special.entr(shares).sum().exp())


def test_codes_are_the_nearest_entries(quantizer: ResidualVectorQuantizer) -> None:
    latents = torch.randn(2, 50, 8)
    codes = quantizer.encode(latents, 4)
    residual = latents
    for k in range(4):
        nearest = torch.cdist(residual, quantizer.codebooks[k].expand(2, -1, -1)).argmin(-1)
        assert torch.equal(codes[:, k], nearest)
        residual = residual - quantizer.codebooks[k][nearest]


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
        replaced += ema.update(quantizer(latents), generator)
    assert replaced > 0
    latents = clustered(2000, seed=999)
    codes = quantizer.encode(latents[None], 4)
    assert perplexity(codes[:, 0], 32) > 16
    assert (latents - quantizer.decode(codes)[0]).square().mean() < 0.2 * latents.square().mean()


def test_an_entry_becomes_the_mean_of_its_vectors(quantizer: ResidualVectorQuantizer) -> None:
    ema = CodebookEMA(quantizer, decay=0.0, dead_share=0.0)
    latents = torch.randn(1, 400, 8)
    quantized = quantizer(latents)
    ema.update(quantized, torch.Generator())
    chosen = quantized.codes[0, 0]
    entry = int(chosen.mode().values)
    torch.testing.assert_close(quantizer.codebooks[0, entry], latents[0][chosen == entry].mean(0), atol=1e-3, rtol=1e-2)


def test_autocast_and_dtype_do_not_reach_the_search(quantizer: ResidualVectorQuantizer) -> None:
    latents = torch.randn(2, 200, 8)
    codes = quantizer.encode(latents, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(latents, 4), codes)
        assert torch.equal(quantizer(latents).codes, codes)
    assert torch.equal(quantizer.half().encode(latents, 4), codes)
    assert torch.equal(quantizer.bfloat16().encode(latents, 4), codes)


def test_masked_frames_and_dropped_layers_do_not_commit(quantizer: ResidualVectorQuantizer) -> None:
    latents = torch.randn(1, 10, 8)
    padded = torch.cat([latents, torch.full((1, 5, 8), 9.0)], 1)
    mask = (torch.arange(15) < 10)[None, :, None]
    torch.testing.assert_close(quantizer(padded, mask).commitment_loss, quantizer(latents).commitment_loss)
    one = quantizer(latents, num_layers=torch.tensor([1]))
    assert one.commitment_loss < quantizer(latents).commitment_loss
    torch.testing.assert_close(one.latents, quantizer.decode(one.codes[:, :1]))
