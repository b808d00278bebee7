"""Other people's codecs, as scripts and tests that compare with them need them. Nothing is downloaded."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: The model's part of the official config/spt_base_cfg.json.
OFFICIAL_CONFIG: dict[str, Any] = {
    "n_filters": 64,
    "strides": [8, 5, 4, 2],
    "dimension": 1024,
    "semantic_dimension": 768,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 1024,
    "n_q": 8,
    "sample_rate": 16000,
}


@functools.cache
def official_class() -> type[torch.nn.Module]:
    """The SpeechTokenizer class of `pip install --no-deps speechtokenizer==1.0.1`; raises ImportError without it.

    Its package imports a trainer with needs that it does not declare, so its modules are imported under empty parents
    of the same names.
    """
    found = importlib.util.find_spec("speechtokenizer")
    if found is None or importlib.util.find_spec("einops") is None:
        raise ImportError("the official package is missing: pip install --no-deps speechtokenizer==1.0.1 einops")
    for name, folder in (("speechtokenizer", ""), ("speechtokenizer.trainer", "/trainer")):
        parent = types.ModuleType(name)
        parent.__path__ = [location + folder for location in found.submodule_search_locations or []]
        sys.modules[name] = parent
    model: type[torch.nn.Module] = importlib.import_module("speechtokenizer.model").SpeechTokenizer
    return model


def official(config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """An official codec with random weights, in eval mode; its codebooks are all zero: see `fill_official`."""
    torch.manual_seed(seed)
    codec = official_class()(config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if name.endswith("alpha"):  # they start at 1, where Snake's division would go untested
                parameter.uniform_(0.5, 2.0)
            elif name.endswith("weight_g"):  # random weights shrink speech until random biases drown it,
                parameter *= 1.7
            elif "bias" in name:  # and then all latents are near ties
                parameter *= 0.05
    return codec


@torch.no_grad()
def fill_official(codec: Any, clips: list[torch.Tensor], iterations: int = 5) -> list[float]:
    """Fill its codebooks by k-means on its own latents of `clips` ([L] each); returns each layer's perplexity there.

    Codebooks of a fresh one are all zero: every code would be 0, and every comparison would pass.
    """
    latents = torch.cat([codec.encoder(clip[None, None])[0].T for clip in clips])
    generator = torch.Generator().manual_seed(0)
    perplexities = []
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        size = len(book.embed)
        if len(latents) < size:
            raise ValueError(f"{size} frames are needed to fill a codebook, the clips have {len(latents)}")
        book.embed.copy_(latents[torch.randperm(len(latents), generator=generator)[:size]])
        for _ in range(iterations):
            codes = book.quantize(latents)
            counts = torch.bincount(codes, minlength=size)
            means = torch.zeros_like(book.embed).index_add_(0, codes, latents) / counts.clamp_min(1)[:, None]
            book.embed.copy_(torch.where(counts[:, None] > 0, means, book.embed))
        codes = book.quantize(latents)
        counts = torch.bincount(codes, minlength=size)
        book.cluster_size.copy_(counts)
        book.embed_avg.copy_(book.embed * counts[:, None])
        book.inited.fill_(1)
        latents = latents - book.embed[codes]
        perplexities.append(float(torch.special.entr(counts / counts.sum()).sum().exp()))
    return perplexities


#: The training's part of the same file.
OFFICIAL_TRAINING: dict[str, Any] = {
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 240,
    "win_size": 1024,
    "fmin": 0,
    "fmax_for_loss": None,
    "mel_loss_lambdas": [45, 1, 1, 1],  # each scale has half the sizes of the one before
    "recon_loss_lambda": 500,
    "commitment_loss_lambda": 10,
    "distill_loss_lambda": 120,
    "learning_rate": 1e-4,
    "betas": [0.9, 0.99],
}


def official_step() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """A step of the official trainer, random weights of the full size: waveforms [B, L] and the teacher's features
    [B, T, 768] to the generator's loss.

    Model, discriminators, losses and optimizers are the package's or torch's; their order is that of the `train` method
    of its trainer, which cannot be imported without what it needs to log and to launch. Raises ImportError without the
    package, or without matplotlib.
    """
    parts, losses = _official_module("discriminators"), _official_module("trainer.loss")
    c = OFFICIAL_TRAINING
    generator = official(OFFICIAL_CONFIG).train()
    discriminators = torch.nn.ModuleList(
        [parts.MultiPeriodDiscriminator(), parts.MultiScaleDiscriminator(), parts.MultiScaleSTFTDiscriminator(32)]
    )
    generator_optimizer, discriminator_optimizer = (
        torch.optim.Adam(module.parameters(), c["learning_rate"], c["betas"]) for module in (generator, discriminators)
    )
    mels = [
        {
            **{name: c[name] // 2**i for name in ("n_fft", "hop_size", "win_size")},
            **{"num_mels": c["num_mels"], "fmin": c["fmin"], "fmax": c["fmax_for_loss"]},
            "sample_rate": OFFICIAL_CONFIG["sample_rate"],
        }
        for i in range(len(c["mel_loss_lambdas"]))
    ]

    def step(waveform: torch.Tensor, features: torch.Tensor) -> float:
        original = waveform.unsqueeze(1)
        decoded, commitment, student = generator(original)

        discriminator_optimizer.zero_grad()
        judged = [discriminator(original, decoded.detach()) for discriminator in discriminators]
        torch.stack([losses.discriminator_loss(real, fake) for real, fake, _, _ in judged]).sum().backward()
        discriminator_optimizer.step()

        generator_optimizer.zero_grad()
        judged = [discriminator(original, decoded) for discriminator in discriminators]
        loss = c["recon_loss_lambda"] * losses.recon_loss(original, decoded)
        for weight, mel in zip(c["mel_loss_lambdas"], mels, strict=True):
            loss = loss + weight * losses.mel_loss(original, decoded, **mel)
        for _, fake, real_features, fake_features in judged:
            loss = loss + losses.feature_loss(real_features, fake_features) + losses.adversarial_loss(fake)
        loss = loss + c["commitment_loss_lambda"] * commitment
        loss = loss + c["distill_loss_lambda"] * losses.d_axis_distill_loss(student, features)
        loss.backward()
        generator_optimizer.step()
        return loss.item()

    return step


def _official_module(name: str) -> Any:
    """Another module of the official package. Where torchaudio is missing, `_torchaudio` stands in."""
    official_class()
    missing = importlib.util.find_spec("torchaudio") is None
    if missing:
        sys.modules["torchaudio"] = _torchaudio()
    try:
        return importlib.import_module(f"speechtokenizer.{name}")
    finally:
        if missing:  # others must not take it for the whole
            del sys.modules["torchaudio"]


def _torchaudio() -> types.ModuleType:
    """A module with as much of torchaudio's `transforms` as the official training calls, equal in result."""
    module = types.ModuleType("torchaudio")
    module.transforms = types.SimpleNamespace(Spectrogram=Spectrogram, MelScale=MelScale)  # type: ignore[attr-defined]
    return module


class Spectrogram(torch.nn.Module):
    """Complex spectra, [..., L] -> [..., bins, frames], divided by the root of the window's energy."""

    def __init__(
        self, n_fft: int, hop_length: int, win_length: int, window_fn: Callable[[int], torch.Tensor], **fixed: Any
    ):
        super().__init__()
        assert fixed == {"normalized": True, "center": False, "pad_mode": None, "power": None} and win_length == n_fft
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", window_fn(win_length), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        flat = waveform.flatten(0, -2)
        spectra = torch.stft(flat, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True)
        return spectra.unflatten(0, waveform.shape[:-1]) / self.window.square().sum().sqrt()


class MelScale:
    """`fb` [bins, mels]: triangles on the HTK mel scale, each of the same area (Slaney)."""

    def __init__(
        self, n_mels: int, sample_rate: int, n_stft: int, f_min: float, f_max: float | None, norm: str, mel_scale: str
    ) -> None:
        assert (norm, mel_scale) == ("slaney", "htk")
        edges = torch.tensor([f_min, sample_rate // 2 if f_max is None else f_max], dtype=torch.float64)
        low, high = 2595 * (1 + edges / 700).log10()
        points = (700 * (10 ** (torch.linspace(float(low), float(high), n_mels + 2) / 2595) - 1)).unsqueeze(1)
        bins = torch.linspace(0, sample_rate // 2, n_stft)
        rising = (bins - points[:-2]) / (points[1:-1] - points[:-2])
        falling = (points[2:] - bins) / (points[2:] - points[1:-1])
        self.fb = (torch.minimum(rising, falling).clamp_min(0) * 2 / (points[2:] - points[:-2])).T


# ---- what speed.py compares with -------------------------------------------------------------------------------------


@dataclass
class Peer:
    """A codec as speed.py calls it."""

    what: str  #: name and bitrate, for the tables
    sample_rate: int
    encode: Callable[[list[torch.Tensor]], Any]  #: clips, float32 [L] each, to whatever `decode` takes
    decode: Callable[[Any], torch.Tensor]  #: speech, [B, ..., L]


def padded(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """[B, 1, L], zeros behind the shorter clips."""
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True).unsqueeze(1)


def _official() -> Peer:
    codec: Any = official(OFFICIAL_CONFIG)
    for layer in codec.quantizer.vq.layers:
        layer._codebook.embed.normal_()
        layer._codebook.inited.fill_(1)
    return Peer("SpeechTokenizer, the authors', 4 kbit/s", 16_000, lambda x: codec.encode(padded(x)), codec.decode)


def _transformers(what: str, name: str, changes: dict[str, Any], options: dict[str, Any]) -> Peer:
    """A codec of transformers: its default configuration with `changes`, random weights; options of its encode."""
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    codec = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**changes)).eval()
    for module in codec.modules():
        # Fresh codebooks are all zero, so that the decoder would be given silence: give it something to do.
        if isinstance(getattr(module, "embed", None), torch.Tensor):
            module.embed.normal_()
    rate = codec.config.sample_rate if name == "Xcodec" else codec.config.sampling_rate

    def decode(encoded: Any) -> torch.Tensor:
        if name == "Encodec":
            waveform: torch.Tensor = codec.decode(encoded.audio_codes, encoded.audio_scales).audio_values
        else:
            waveform = codec.decode(audio_codes=encoded.audio_codes).audio_values
        return waveform

    return Peer(what, rate, lambda clips: codec.encode(padded(clips), **options), decode)


def _snac() -> Peer:
    """SNAC of 24 kHz for speech, by the configuration of its published checkpoint."""
    torch.manual_seed(0)
    codec = (
        importlib.import_module("snac")
        .SNAC(
            **{"sampling_rate": 24_000, "encoder_dim": 48, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1024},
            **{"decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "codebook_size": 4096, "codebook_dim": 8},
            **{"vq_strides": [4, 2, 1], "noise": True, "depthwise": True},
        )
        .eval()
    )
    return Peer("SNAC 24 kHz, 1 kbit/s", 24_000, lambda clips: codec.encode(padded(clips)), codec.decode)


_DAC_24_KHZ = {"sampling_rate": 24_000, "downsampling_ratios": [2, 4, 5, 8], "upsampling_ratios": [8, 5, 4, 2]}
PEERS: dict[str, Callable[[], Peer]] = {
    "official": _official,
    "encodec": lambda: _transformers("EnCodec 24 kHz, 6 kbit/s", "Encodec", {}, {"bandwidth": 6.0}),
    "mimi": lambda: _transformers("Mimi, 4.4 kbit/s", "Mimi", {}, {"num_quantizers": 32}),
    "dac": lambda: _transformers("DAC 24 kHz, 6 kbit/s", "Dac", {**_DAC_24_KHZ, "n_codebooks": 8}, {}),
    "snac": _snac,
    "xcodec": lambda: _transformers("X-Codec, 4 kbit/s", "Xcodec", {}, {"bandwidth": 4.0}),
}
