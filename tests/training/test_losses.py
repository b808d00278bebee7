from __future__ import annotations

import torch

from vocable.audio import mel_filterbank
from vocable.training.losses import SpectralLoss


def test_the_spectral_loss_is_what_it_says() -> None:
    torch.manual_seed(0)
    decoded, original = 0.1 * torch.randn(2, 2, 4000)
    losses = SpectralLoss(16_000, ((512, 40),))(decoded, original)
    window = torch.hann_window(512)
    a, b = (
        torch.stft(w, 512, 128, window=window, normalized=True, pad_mode="constant", return_complex=True).mT
        for w in (decoded, original)
    )
    mel_a, mel_b = ((s.abs() @ mel_filterbank(16_000, 512, 40) + 1e-5).log() for s in (a, b))
    torch.testing.assert_close(losses["mel"], (mel_a - mel_b).abs().mean(), atol=1e-4, rtol=1e-4)
    compressed_a, compressed_b = (torch.view_as_real(s * (s.abs().square() + 1e-5).pow(-0.35)) for s in (a, b))
    torch.testing.assert_close(losses["spectrum"], (compressed_a - compressed_b).abs().mean(), atol=1e-4, rtol=1e-4)


def test_the_same_speech_has_no_spectral_loss() -> None:
    waveform = 0.1 * torch.randn(1, 4000, requires_grad=True)
    losses = SpectralLoss(16_000, ((512, 40), (256, 20)))(waveform, waveform.detach())
    assert losses["mel"] == losses["spectrum"] == 0
    sum(losses.values()).backward()


def test_a_loss_that_was_first_heard_under_inference_mode_can_be_trained_with() -> None:
    loss = SpectralLoss(16_000, ((512, 17),))  # a filterbank that nothing else asks for
    waveform = 0.1 * torch.randn(1, 4000)
    with torch.inference_mode():
        loss(waveform, waveform)
    decoded = waveform.clone().requires_grad_()
    sum(loss(decoded, 0.5 * waveform).values()).backward()
    assert decoded.grad.abs().sum() > 0
    mel_filterbank(16_000, 512, 17).zero_()  # a caller's own
    assert mel_filterbank(16_000, 512, 17).any()
