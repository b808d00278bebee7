from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import vocable
from conftest import make_tiny, tiny_config
from vocable.audio import AudioError
from vocable.codec.config import PRESETS, CodecConfig
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import TokensError


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.randn(7000, generator=torch.Generator().manual_seed(0)) * 0.1


def test_partial_layers_are_rows_of_the_full_encode(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    full = tiny.encode(clip)
    assert full.codes.dtype == torch.int64
    assert full.codes.unique().numel() > 10, "degenerate codes would make this test pass"
    for layers in (slice(0, 1), slice(1, 4), slice(2, None), slice(None, 2), slice(-2, None)):
        part = tiny.encode(clip, layers=layers)
        assert torch.equal(part.codes, full.codes[:, layers])
    assert torch.equal(full.semantic, full.codes[:, :1])
    assert torch.equal(full.acoustic, full.codes[:, 1:])


def test_layers_above_cost_no_search(
    tiny: SpeechTokenizer, clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    nearest = tiny.quantizer.nearest
    monkeypatch.setattr(tiny.quantizer, "nearest", lambda v, k, norms: searched.append(k) or nearest(v, k, norms))
    tiny.encode(clip, layers=slice(0, 1))
    assert searched == [0]


def test_decode_of_encoded_of_codes_and_of_layers(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    encoded = tiny.encode(clip)
    whole = tiny.decode(encoded).waveform
    assert torch.equal(whole, tiny.decode(encoded.codes, num_samples=[7000]).waveform)
    assert torch.equal(whole, tiny.reconstruct(clip).waveform)
    part = tiny.decode(encoded, layers=slice(1, 3)).waveform
    assert torch.equal(part, tiny.decode(encoded.codes[:, 1:3], num_samples=[7000], layers=slice(1, 3)).waveform)
    assert not torch.allclose(part, whole)
    assert tiny.decode(encoded.codes).waveform.shape == (1, 22 * 320)


def test_embed_is_the_sum_of_codebook_vectors(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    codes = tiny.encode(clip).codes
    books = tiny.quantizer.codebooks
    expected = sum(books[k][codes[0, k]] for k in range(1, 4)).T
    torch.testing.assert_close(tiny.embed(codes[:, 1:4], layers=slice(1, 4))[0], expected)
    error = (tiny.latents(clip) - tiny.embed(codes)).norm()
    assert error < (tiny.latents(clip) - tiny.embed(codes[:, :1], layers=slice(0, 1))).norm()


def test_forward_carries_gradients_and_changes_no_codebook() -> None:
    model = make_tiny().train()
    before = model.quantizer.codebooks.clone()
    waveform = (torch.randn(2, 1000) * 0.1).requires_grad_()
    out = model(waveform, num_samples=torch.tensor([1000, 500]), num_layers=torch.tensor([8, 1]))
    assert out.waveform.shape == (2, 1000)
    (out.waveform.square().mean() + out.losses["commitment"] + out.semantic.square().mean()).backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing
    assert torch.equal(before, model.quantizer.codebooks)


def test_forward_agrees_with_encode_and_decode(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    out = tiny(clip[None])
    encoded = tiny.encode(clip)
    assert torch.equal(out.codes, encoded.codes)
    torch.testing.assert_close(out.waveform, tiny.decode(encoded).waveform, atol=1e-5, rtol=1e-4)


def test_every_layer_commits() -> None:
    """The commitment of each layer reaches the latents: its gradient is 2 (residual - code vector) / numel."""
    quantizer = make_tiny().quantizer
    latents = torch.randn(2, 5, 8, requires_grad=True)
    quantized = quantizer(latents)
    found = torch.autograd.grad(quantized.commitment_loss, latents)[0]
    residual, expected = latents.detach(), torch.zeros_like(latents)
    for k in range(quantizer.num_quantizers):
        residual = residual - quantizer.codebooks[k][quantized.codes[:, k]]  # the error of layer k
        expected += 2 * residual / latents.numel()
    torch.testing.assert_close(found, expected)


def test_numbers(tiny: SpeechTokenizer) -> None:
    assert (tiny.frame_rate, tiny.hop_length, tiny.sample_rate) == (50.0, 320, 16_000)
    fast = PRESETS["fast"]
    model = SpeechTokenizer(fast)
    assert model.bitrate() == 4000 and model.bitrate(slice(0, 1)) == 500
    used = [model.encoder, model.decoder]
    assert sum(p.numel() for m in used for p in m.parameters()) + model.quantizer.codebooks.numel() <= 11_000_000
    assert [tiny.num_frames(n) for n in (1, 319, 320, 321, 16_001)] == [1, 1, 1, 2, 51]
    assert tiny.time_to_frame(0.3) == 15 and tiny.frame_to_time(15) == pytest.approx(0.3)


def test_resampling_only_when_the_rate_is_named(tiny: SpeechTokenizer) -> None:
    tone = np.sin(np.arange(44_100) * 0.05).astype(np.float32) * 0.3
    assert tiny.encode(tone, sample_rate=44_100).num_samples.tolist() == [16_000]
    assert tiny.encode(tone).num_samples.tolist() == [44_100]


def test_inputs_of_every_accepted_kind_agree(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    codes = tiny.encode(clip).codes
    stuck = clip.numpy().copy()
    stuck.flags.writeable = False
    other = clip.numpy().astype(">f4")  # as formats of other machines have it
    backwards = clip.numpy()[::-1].copy()[::-1]
    batches = (clip[None], clip.numpy()[None], clip[None, None], clip.numpy()[None, None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (clip.numpy(), clip.double(), [clip], [clip.numpy()], stuck, [stuck], other, backwards, *batches):
            assert torch.equal(tiny.encode(same).codes, codes)
        held = codes.numpy().astype(np.uint16)
        held.flags.writeable = False
        assert torch.equal(tiny.embed(held), tiny.embed(codes))
    assert torch.equal(tiny(clip[None, None]).codes, tiny(clip[None]).codes)
    assert torch.equal(tiny.latents(clip[None, None]), tiny.latents(clip))


def test_errors_name_the_axis_that_is_wrong(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    stereo = torch.stack([clip, clip], 1)
    for call in (tiny.encode, tiny.latents, tiny.reconstruct, tiny):
        with pytest.raises(AudioError, match=r"\[7000, 2\] is probably.*waveform.mean\(1\)"):
            call(stereo)
        with pytest.raises(AudioError, match=r"not \[1, 2, 7000\]; drop or average the channel axis"):
            call(stereo.T[None])
    assert len(tiny.encode(stereo[:40], num_samples=[2] * 40)) == 40, "told, it is a batch"
    assert len(tiny.encode(clip[:4, None])) == 4
    codes = tiny.encode(clip).codes
    for call in (tiny.decode, tiny.embed):
        with pytest.raises(TokensError, match=r"\[K, B, T\]: give codes.transpose"):
            call(codes.transpose(0, 1))
        with pytest.raises(TokensError, match=r"one clip is codes\[None\]"):
            call(codes[0])


@pytest.mark.parametrize("rate", [np.int64(44_100), np.int32(44_100), np.float32(44_100), np.array(44_100)[()]])
def test_rates_of_any_library(tiny: SpeechTokenizer, rate: object) -> None:
    tone = np.sin(np.arange(4_410) * 0.05).astype(np.float32)
    assert tiny.encode(tone, sample_rate=rate).num_samples.tolist() == [1_600]
    assert tiny.encode(tone, sample_rate=np.int64(16_000), num_samples=np.array([4_000])).num_samples.tolist() == [
        4_000
    ]


def test_results_are_compared_as_objects(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    a, b = tiny.encode(clip), tiny.encode(clip)
    assert a == a and a != b and len({a, b}) == 2
    speech = tiny.decode(a)
    assert speech == speech != tiny.decode(a) and hash(speech)


def test_errors_are_at_the_top() -> None:
    assert vocable.TokensError is TokensError and vocable.AudioError is AudioError
    assert issubclass(vocable.CheckpointError, ValueError)
    assert all(hasattr(vocable, name) for name in vocable.__all__)
    with pytest.raises(AttributeError, match="no attribute 'spam'"):
        _ = vocable.spam


def test_bfloat16_leaves_quantizer_and_stft_in_float32(clip: torch.Tensor) -> None:
    model = make_tiny().to(torch.bfloat16)
    assert model.quantizer.codebooks.dtype == torch.float32
    assert model.encoder.stft.analysis.dtype == torch.float32
    assert model.encoder.embed.weight.dtype == torch.bfloat16
    encoded = model.encode([clip, clip[:3000]])
    assert torch.isfinite(model.decode(encoded).waveform).all()
    full = make_tiny()
    codes = full.encode(clip).codes
    assert (encoded.codes[0] == codes[0]).float().mean() > 0.9
    torch.testing.assert_close(model.decode(codes).waveform, full.decode(codes).waveform, atol=5e-4, rtol=0)


def test_bfloat16_counts_long_clips() -> None:
    """bfloat16 has 8 bits of precision: lengths above 256 must not be counted in it."""
    model = make_tiny().to(torch.bfloat16)
    g = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(frames * 320, generator=g) for frames in (511, 301, 100)]
    batch = model.encode(clips)
    for i, clip in enumerate(clips):
        alone = model.encode(clip).codes[0]
        assert (batch.codes[i, :, : alone.shape[1]] == alone).float().mean() > 0.97
    assert torch.isfinite(model(clips[2][None]).semantic).all()


def test_forward_with_lengths_is_encode_and_decode(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    dirty = torch.stack([clip, clip.flip(0)])
    out = tiny(dirty, num_samples=torch.tensor([3000, 500]))
    encoded = tiny.encode(dirty, num_samples=[3000, 500])
    assert torch.equal(out.codes[0, :, :10], encoded.codes[0])
    assert torch.equal(out.codes[1, :, :2], encoded.codes[1, :, :2])
    torch.testing.assert_close(out.waveform[:, :3000], tiny.decode(encoded).waveform, atol=1e-5, rtol=1e-4)
    assert out.waveform.shape == dirty.shape and not out.waveform[0, 3000:].any() and not out.waveform[1, 500:].any()


def test_the_stft_stays_exact_under_autocast(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    stft, whole = tiny.decoder.stft, clip[None, :6400]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(stft.inverse(*stft(whole), None), whole, atol=1e-5, rtol=1e-4)


def test_configs_that_cannot_be() -> None:
    for changes in (
        {"codebook_size": 0},
        {"num_quantizers": 8.5},
        {"dimension": 4},
        {"hop_length": 321},
        {"hop_length": True},
        {"spectral": {"n_fft": "640"}},
        {"spectral": {"n_fft": 700}},
        {"spectral": {"kernel_size": 4}},
        {"spectral": {"frame_dim": 23}},
    ):
        with pytest.raises(ValueError, match="must be"):
            CodecConfig.from_dict({**tiny_config().to_dict(), **changes})


def test_codes_of_another_codec_are_refused(tiny: SpeechTokenizer, clip: torch.Tensor) -> None:
    other = make_tiny(seed=1)
    with pytest.raises(TokensError, match=r"codes of tokens-\w+, but those of this codec are tokens-\w+"):
        other.decode(tiny.encode(clip))


def test_an_stft_that_inverts_itself(tiny: SpeechTokenizer) -> None:
    stft = tiny.decoder.stft
    for frames in (1, 2, 7):
        waveform = torch.randn(2, frames * 320)
        real, imag = stft(waveform)
        assert real.shape == (2, 2 * frames, 321)
        torch.testing.assert_close(stft.inverse(real, imag, None), waveform, atol=1e-5, rtol=1e-4)


def test_a_quiet_start_and_end_have_no_edge_artefacts(tiny: SpeechTokenizer) -> None:
    """Overlap-add divided by the window sum: the first and last samples are no louder than the rest."""
    stft = tiny.decoder.stft
    steady = torch.randn(1, 6400, generator=torch.Generator().manual_seed(3)) * 0.1
    real, imag = stft(steady)
    noisy = stft.inverse(real + 0.01 * torch.randn_like(real), imag, None)
    error = (noisy - steady).abs()[0]
    assert error[:160].mean() < 3 * error.mean() and error[-160:].mean() < 3 * error.mean()
