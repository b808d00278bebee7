"""Ours against the authors' package, with the same weights: codes, latents, waveforms, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SPEECH, differing_frames
from peers import OFFICIAL_CONFIG, MelScale, Spectrogram, fill_official, official, official_class
from vocable import audio
from vocable.codec import exchange
from vocable.codec.model import SpeechTokenizer

try:
    official_class()
except ImportError as missing:
    pytest.skip(str(missing), allow_module_level=True)

#: The same network, narrow: what `make test` has time for.
NARROW = {"n_filters": 8, "dimension": 64, "semantic_dimension": 48}
CASES = [
    pytest.param({**NARROW, "codebook_size": 64}, id="shipped-clip"),
    pytest.param({**NARROW, "activation": "ELU"}, id="narrow-ELU"),
    pytest.param({**NARROW, "activation": "Snake"}, id="narrow-Snake"),
    pytest.param(
        {**NARROW, "n_residual_layers": 2, "strides": [8, 5, 8], "lstm_layers": 1, "bidirectional": False},
        id="another-shape",
    ),
    pytest.param({"activation": "ELU"}, id="ELU", marks=pytest.mark.slow),
    pytest.param({"activation": "Snake"}, id="Snake", marks=pytest.mark.slow),
]


def assert_within(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Within 1e-5, of the peak where that is above 1."""
    torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())), rtol=0)


class Pair:
    """An official codec with filled codebooks, ours loaded from its checkpoint, and 20 real clips."""

    def __init__(self, changes: dict[str, Any], clips: list[torch.Tensor], folder: Path) -> None:
        self.folder, self.clips = folder, clips[:: max(1, len(clips) // 20)]
        config = OFFICIAL_CONFIG | changes
        self.theirs: Any = official(config)
        self.perplexities = fill_official(self.theirs, clips)
        # Keys of their trainer and of their hub stand beside the model's.
        (folder / "config.json").write_text(json.dumps(config | {"sampling_rate": 16000, "segment_size": 48000}))
        torch.save(self.theirs.state_dict(), folder / "SpeechTokenizer.pt")
        self.ours = SpeechTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if "codebook_size" in request.param:  # what can be compared without the real recordings
        speech = torch.from_numpy(audio.read(SPEECH)[0])
        return Pair(request.param, list(speech.split(17_011)), tmp_path_factory.mktemp("official"))
    real_clips: list[Path] = request.getfixturevalue("real_clips")
    count = 30
    chosen = [real_clips[i * len(real_clips) // count] for i in range(count)]
    # Four seconds at most, and lengths that end anywhere in a frame.
    clips = [torch.from_numpy(audio.read(path)[0])[: 64_000 - 37 * i] for i, path in enumerate(chosen)]
    return Pair(request.param, clips, tmp_path_factory.mktemp("official"))


def test_the_codebooks_are_filled(pair: Pair) -> None:
    enough = 30 if pair.ours.config.codebook_size == 1024 else 10
    assert min(pair.perplexities) > enough, pair.perplexities


@torch.no_grad()
def test_codes_latents_and_waveforms(pair: Pair) -> None:
    frames = ties = 0
    for clip in pair.clips:
        latents = pair.theirs.encoder(clip[None, None])
        assert_within(pair.ours.latents(clip), latents)
        codes = pair.theirs.encode(clip[None, None])  # [K, B, T]
        encoded = pair.ours.encode(clip)
        ties += differing_frames(pair.ours, clip, codes[:, 0], encoded.codes[0])
        frames += codes.shape[2]
        waveform = pair.theirs.decode(codes)[:, 0]  # whole frames: theirs does not trim
        ours = pair.ours.decode(codes.transpose(0, 1)).waveform
        assert_within(ours, waveform)
        trimmed = pair.ours.decode(encoded).waveform
        assert trimmed.shape == (1, len(clip))
    assert ties * 8 <= max(1, frames * 8 // 10_000), f"{ties} near ties in {frames} frames"


@torch.no_grad()
def test_decode_from_every_layer_on(pair: Pair) -> None:
    codes = pair.theirs.encode(pair.clips[0][None, None, :8000])
    count = len(codes)
    for start in range(count):
        waveform = pair.theirs.decode(codes[start:], st=start)[:, 0]
        ours = pair.ours.decode(codes[start:].transpose(0, 1), layers=slice(start, count)).waveform
        assert_within(ours, waveform)


@torch.no_grad()
def test_partial_encodes_are_rows_of_the_whole(pair: Pair) -> None:
    clip = pair.clips[1][:16_000]
    whole = pair.ours.encode(clip).codes
    for stop in range(1, whole.shape[1] + 1):
        assert torch.equal(pair.ours.encode(clip, layers=slice(0, stop)).codes, whole[:, :stop])
        assert torch.equal(pair.ours.encode(clip, layers=slice(stop - 1, stop)).codes, whole[:, stop - 1 : stop])


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 2, 3, 5, 7, 39, 319, 320, 321, 641, 15_999])
def test_short_and_odd_lengths(pair: Pair, samples: int) -> None:
    clip = pair.clips[2][1000 : 1000 + samples]
    latents = pair.theirs.encoder(clip[None, None])
    assert_within(pair.ours.latents(clip), latents)
    assert pair.ours.reconstruct(clip).waveform.shape == (1, samples)


def test_the_round_trip_is_bit_equal(pair: Pair, tmp_path: Path) -> None:
    name = exchange.import_official(pair.folder, tmp_path / "ours")
    assert name == pair.ours.id == SpeechTokenizer.from_pretrained(tmp_path / "ours").id
    back = torch.load(exchange.export_official(tmp_path / "ours", tmp_path / "back"), weights_only=True)
    before = pair.theirs.state_dict()
    assert back.keys() == before.keys()
    for key, tensor in before.items():
        assert back[key].dtype == tensor.dtype and torch.equal(back[key], tensor), key
    type(pair.theirs).load_from_checkpoint(
        str(tmp_path / "back/config.json"), str(tmp_path / "back/SpeechTokenizer.pt")
    )


def test_the_differentiable_pass_is_theirs(pair: Pair) -> None:
    clip = pair.clips[3][:4811][None]
    waveform, _, feature = pair.theirs(clip[:, None])
    out = pair.ours(clip)
    waveform = waveform[..., :4811]
    assert_within(out.waveform, waveform[:, 0])
    assert_within(out.semantic, feature)


@pytest.mark.parametrize("samples", [4800, 4811, 3])
def test_gradients_are_theirs(pair: Pair, samples: int) -> None:
    """Of the encoder with respect to speech, and of the decoder with respect to latents."""
    ours, theirs = (pair.clips[3][2000 : 2000 + samples][None].clone().requires_grad_() for _ in range(2))
    latents = pair.theirs.encoder(theirs[:, None])
    pull = torch.randn_like(latents)
    (latents * pull).sum().backward()
    (pair.ours.encoder(ours).transpose(1, 2) * pull).sum().backward()
    assert_within(ours.grad, theirs.grad)
    ours, theirs = (latents.detach().clone().requires_grad_() for _ in range(2))
    waveform = pair.theirs.decoder(theirs)[:, 0]
    pull = torch.randn_like(waveform)
    (waveform * pull).sum().backward()
    (pair.ours.decoder(ours.transpose(1, 2)) * pull).sum().backward()
    assert_within(ours.grad, theirs.grad)


def test_the_stand_ins_for_torchaudio() -> None:
    mels = MelScale(n_mels=80, sample_rate=16_000, n_stft=513, f_min=0, f_max=None, norm="slaney", mel_scale="htk")
    torch.testing.assert_close(mels.fb, audio.mel_filterbank(16_000, 1024, 80), atol=1e-6, rtol=1e-4)
    fixed = {"normalized": True, "center": False, "pad_mode": None, "power": None}
    waveform = torch.randn(2, 1, 4000)
    spectra = Spectrogram(512, 128, 512, torch.hann_window, **fixed)(waveform)
    frames = waveform.unfold(2, 512, 128) * torch.hann_window(512)
    expected = torch.fft.rfft(frames).transpose(2, 3) / torch.hann_window(512).norm()
    torch.testing.assert_close(spectra, expected)
