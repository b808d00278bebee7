from __future__ import annotations

import torch

from vocable.codec.rvq import ResidualVectorQuantizer


def test_codes_are_the_nearest_entries(quantizer: ResidualVectorQuantizer) -> None:
    latents = torch.randn(2, 50, 8)
    codes = quantizer.encode(latents, 4)
    residual = latents
    for k in range(4):
        nearest = torch.cdist(residual, quantizer.codebooks[k].expand(2, -1, -1)).argmin(-1)
        assert torch.equal(codes[:, k], nearest)
        residual = residual - quantizer.codebooks[k][nearest]


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
