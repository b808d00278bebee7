"""Channels that RVQ-1 has to itself: which ones its codebook uses, and whose gradient reaches them."""

from __future__ import annotations

import pytest
import torch

from conftest import make_tiny
from vocable.codec.config import SpectralConfig
from vocable.codec.model import SpeechTokenizer
from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.training.codebooks import CodebookEMA

DIMENSION, CONTENT = 16, 4


def quantizer() -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(4, 32, DIMENSION, CONTENT)


@pytest.fixture
def codec() -> SpeechTokenizer:
    blocks = {f"{side}_{rate}_blocks": 1 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    spectral = SpectralConfig(fine_dim=16, frame_dim=16, expansion=2, content_blocks=1, **blocks)
    return make_tiny(spectral=spectral, dimension=DIMENSION, num_quantizers=4).train()


def apart(books: torch.Tensor) -> bool:
    """Whether the first codebook says nothing of the channels of the others, nor they of its own."""
    return not (books[0, :, CONTENT:].any() or books[1:, :, :CONTENT].any()) and bool(
        books[0].any() and books[1:].any()
    )


def test_codebooks_stay_in_their_channels() -> None:
    own = quantizer()
    assert not apart(own.codebooks), "random entries, as they come"
    ema, generator = CodebookEMA(own, decay=0.9, dead_share=0.5), torch.Generator().manual_seed(0)
    ema.kmeans_start(torch.randn(400, DIMENSION), 5, generator)
    assert apart(own.codebooks)
    before, replaced = own.codebooks.clone(), 0
    for _ in range(10):
        replaced += ema.update([own(torch.randn(2, 60, DIMENSION))], generator)
    assert replaced > 0 and not torch.equal(own.codebooks, before)
    assert apart(own.codebooks)


def test_codes_are_the_nearest_entries_of_each_part() -> None:
    own = quantizer()
    CodebookEMA(own).kmeans_start(torch.randn(400, DIMENSION), 5, torch.Generator().manual_seed(0))
    latents = torch.randn(2, 50, DIMENSION)
    codes = own.encode(latents, 4)
    first = torch.cdist(latents[..., :CONTENT], own.codebooks[0, :, :CONTENT].expand(2, -1, -1)).argmin(-1)
    assert torch.equal(codes[:, 0], first)
    residual = latents[..., CONTENT:]
    for k in range(1, 4):
        nearest = torch.cdist(residual, own.codebooks[k, :, CONTENT:].expand(2, -1, -1)).argmin(-1)
        assert torch.equal(codes[:, k], nearest)
        residual = residual - own.codebooks[k, nearest, CONTENT:]
    quantized = own(latents)
    assert torch.equal(quantized.codes, codes) and torch.equal(own.encode(latents, 2), codes[:, :2])
    torch.testing.assert_close(quantized.latents, own.decode(codes))
    content, vectors, alone, _ = own.content(latents)
    assert torch.equal(alone, first) and torch.equal(content[..., :CONTENT], latents[..., :CONTENT])
    torch.testing.assert_close(vectors, own.decode(codes[:, :1]))
    torch.testing.assert_close(vectors, quantized.first)


def test_without_channels_of_its_own_rvq_1_takes_all() -> None:
    torch.manual_seed(0)
    plain = ResidualVectorQuantizer(4, 32, DIMENSION)
    latents = torch.randn(2, 50, DIMENSION)
    inputs, rest = plain.inputs(latents)
    assert torch.equal(inputs, latents) and rest is None
    content, vectors, codes, _ = plain.content(latents)
    assert torch.equal(content, latents) and torch.equal(codes, plain.encode(latents, 1)[:, 0])
    torch.testing.assert_close(vectors, plain.decode(codes[:, None]))


def test_no_waveform_loss_reaches_the_content_branch(codec: SpeechTokenizer) -> None:
    output = codec(0.2 * torch.randn(2, 4000))
    output.waveform.square().sum().backward()
    branch = [p for name, p in codec.encoder.named_parameters() if name.startswith("content")]
    assert branch and all(p.grad is None or not p.grad.any() for p in branch)
    assert codec.encoder.project.weight.grad.any(), "it reaches the other channels"
    codec.zero_grad()
    output = codec(0.2 * torch.randn(2, 4000))
    output.semantic.square().sum().backward()
    assert codec.encoder.content_project.weight.grad.any(), "distillation does"
    assert codec.encoder.project.weight.grad is None or not codec.encoder.project.weight.grad.any()


def test_a_clip_of_one_layer_sends_no_gradient_to_the_others_channels(codec: SpeechTokenizer) -> None:
    waveform = 0.2 * torch.randn(2, 4000)
    latents: list[torch.Tensor] = []
    codec.encoder.register_forward_hook(lambda module, given, out: (out.retain_grad(), latents.append(out))[0])
    output = codec(waveform, num_layers=torch.tensor([1, 3]))
    output.waveform.square().sum().backward()
    gradient = latents[0].grad
    assert not gradient[0].any(), "decoded from RVQ-1 alone"
    assert gradient[1, :, CONTENT:].any() and not gradient[1, :, :CONTENT].any()
    only = codec.quantizer(latents[0].detach(), num_layers=torch.tensor([1, 3]))
    torch.testing.assert_close(only.latents[0], only.first[0])


def test_commitment_reaches_both_parts(codec: SpeechTokenizer) -> None:
    codec(0.2 * torch.randn(2, 4000)).losses["commitment"].backward()
    assert codec.encoder.content_project.weight.grad.any() and codec.encoder.project.weight.grad.any()
