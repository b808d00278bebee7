"""The spectral losses of the codec, the vocoder and the comparison of recipes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocable.audio import mel_filterbank


class SpectralLoss(nn.Module):
    """Log-mel L1 and compressed complex-spectrum L1, each averaged over several STFT resolutions.

    The mel term (as in HiFi-GAN, arXiv 2010.05646, at several resolutions) does not depend on phase. The complex term
    compares spectra whose magnitude is raised to the power 0.3 and whose phase is kept (as in Braun and Tashev 2020,
    arXiv 2009.12286): without it a codec that predicts phase sounds hoarse.
    """

    def __init__(self, sample_rate: int, resolutions: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        #: (n_fft, n_mels) of each resolution; the hop is a quarter of n_fft.
        self.resolutions = resolutions

    def forward(self, decoded: Tensor, original: Tensor) -> dict[str, Tensor]:
        """Return the losses "mel" and "spectrum", scalars, for decoded and original speech, [B, L] each."""
        mel, spectrum = decoded.new_zeros(()), decoded.new_zeros(())
        for n_fft, n_mels in self.resolutions:
            window = torch.hann_window(n_fft, device=decoded.device)
            filters = mel_filterbank(self.sample_rate, n_fft, n_mels).to(decoded.device)
            a, b = (_stft(w, n_fft, window) for w in (decoded, original))
            power_a, power_b = _power(a), _power(b)
            mel = mel + (_log_mel(power_a, filters) - _log_mel(power_b, filters)).abs().mean()
            spectrum = spectrum + (_compress(a, power_a) - _compress(b, power_b)).abs().mean()
        count = len(self.resolutions)
        return {"mel": mel / count, "spectrum": spectrum / count}


def _stft(waveform: Tensor, n_fft: int, window: Tensor) -> Tensor:
    """Return real and imaginary parts [B, frames, bins, 2], scaled so that the level does not grow with n_fft."""
    spectrum = torch.stft(
        waveform.float(), n_fft, n_fft // 4, window=window, normalized=True, pad_mode="constant", return_complex=True
    )
    return torch.view_as_real(spectrum).transpose(1, 2)


def _power(spectrum: Tensor) -> Tensor:
    """Return the squared magnitudes of a spectrum: [B, frames, bins, 2] -> [B, frames, bins]."""
    real, imag = spectrum.unbind(-1)  # because a sum over an axis of length two is slow
    return torch.addcmul(real.square(), imag, imag)


def _log_mel(power: Tensor, filters: Tensor) -> Tensor:
    magnitude = (power + 1e-9).sqrt()
    # The floor is about 60 dB below speech: differences between hisses below it should not cost bits.
    return (magnitude @ filters + 1e-5).log()


def _compress(spectrum: Tensor, power: Tensor) -> Tensor:
    # The power has a floor because the gradient of |x|^0.3 is infinite at 0.
    return spectrum * (power + 1e-5).pow(-0.35).unsqueeze(-1)
