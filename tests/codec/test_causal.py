"""Causal codecs: how far decoded speech depends on what comes, chunks, batches, and the parts that they are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import differing_frames, make_tiny, tiny_paper_config
from vocable.codec import long
from vocable.codec.config import CodecConfig, SpectralConfig
from vocable.codec.long import run_staged
from vocable.codec.model import SpeechTokenizer
from vocable.codec.spectral import STFT, PhaseNoise
from vocable.training.codebooks import CodebookEMA

HOP = 32
SYNTHESIS = {0: 64, 32: 32, 128: 128}  #: `synthesis_n_fft` and the size that it stands for


def make_causal(codec: dict[str, object] | None = None, **changes: object) -> SpeechTokenizer:
    """A tiny causal codec of short frames, whose blocks all count and whose codebooks tell latents apart.

    codec: fields of CodecConfig; the others are those of SpectralConfig.
    """
    blocks = {f"{side}_{rate}_blocks": 2 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    fields = {"n_fft": 2 * HOP, "fine_dim": 16, "frame_dim": 16, "expansion": 2, "causal": True, **blocks, **changes}
    # A quarter of the channels, normed, must tell frames apart: two normed channels are (1, -1) or (-1, 1).
    sizes = {"spectral": SpectralConfig(**fields), "hop_length": HOP, "num_quantizers": 3, "dimension": 32}
    made = make_tiny(**sizes | (codec or {}))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if name.endswith("scale"):
            parameter.data.fill_(1.0)
    noise = 0.2 * torch.randn(4, 200 * HOP, generator=generator)
    latents = made.latents(noise).transpose(1, 2).flatten(0, 1)
    CodebookEMA(made.quantizer).kmeans_start(latents, 3, generator)
    return made


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def first_change(a: torch.Tensor, b: torch.Tensor) -> int:
    """The first of the last axis at which two signals differ; its length if none does."""
    different = (a != b).reshape(-1, a.shape[-1]).any(0).nonzero()
    return int(different[0]) if len(different) else a.shape[-1]


# ---- delay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synthesis", SYNTHESIS)
@pytest.mark.parametrize(("encoder", "decoder"), [(0, 0), (2, 0), (0, 4), (4, 2)])
@torch.no_grad()
def test_speech_depends_on_nothing_later_than_the_delay(encoder: int, decoder: int, synthesis: int) -> None:
    codec = make_causal(
        encoder_look_ahead=encoder,
        decoder_look_ahead=decoder,
        synthesis_n_fft=synthesis,
        content_blocks=1,
        phase_noise=0.1,
    )
    delay = codec.config.delay
    assert delay == (1 + encoder + decoder) * HOP - 1 + SYNTHESIS[synthesis] - HOP // 2
    clip = noise(60 * HOP)
    spoken, codes = codec.decoder(codec.encoder(clip[None]))[0], codec.encode(clip).codes
    decoded, nearest = codec.decode(codes).waveform[0], clip.numel()
    for t in (30 * HOP, 30 * HOP + 7, 31 * HOP - 1, 45 * HOP - 1):
        other = clip.clone()
        other[t:] = noise(len(clip) - t, seed=t)
        changed = codec.encode(other).codes
        assert first_change(codes[0], changed[0]) >= t // HOP - encoder
        assert first_change(decoded, codec.decode(changed).waveform[0]) >= t - delay
        begin = first_change(spoken, codec.decoder(codec.encoder(other[None]))[0])
        assert begin >= t - delay
        nearest = min(nearest, begin - (t - delay))
    assert nearest < HOP // 2, "and the delay is no longer than it must be, but for the ends of windows near 0"


def test_a_codec_that_needs_the_whole_clip_has_no_delay(tiny: SpeechTokenizer) -> None:
    assert tiny.config.delay is None and tiny_paper_config().delay is None
    assert CodecConfig(spectral=SpectralConfig(causal=True)).delay == 320 - 1 + 640 - 160


# ---- chunks and batches --------------------------------------------------------------------------------------------

CODECS = {
    "plain": make_causal(),
    "content and noise": make_causal(content_blocks=2, phase_noise=0.3, synthesis_n_fft=HOP),
    "look-ahead": make_causal(encoder_look_ahead=3, decoder_look_ahead=5, content_blocks=1, phase_noise=0.3),
}


def cut(waveform: torch.Tensor, seed: int, most: int) -> Iterator[torch.Tensor]:
    rng, at = np.random.default_rng(seed), 0
    while at < len(waveform):
        size = int(rng.integers(1, most))
        yield waveform[at : at + size]
        at += size


@pytest.mark.parametrize("kind", CODECS)
@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(1, 150 * HOP),
    chunk=st.sampled_from([1, 3, 7, 20, 1000]),
    most=st.sampled_from([50, 700, 9000]),
)
def test_chunks_equal_the_whole(kind: str, samples: int, chunk: int, most: int) -> None:
    codec, clip = CODECS[kind], noise(samples, seed=samples)
    whole = codec.encode(clip)
    pieces = codec.encode_long(cut(clip, samples, most), chunk_frames=chunk)
    assert torch.equal(pieces.num_samples, whole.num_samples)
    assert differing_frames(codec, clip, whole.codes[0], pieces.codes[0]) <= 1
    spoken = torch.cat(list(codec.decode_long(whole, chunk_frames=chunk)))
    torch.testing.assert_close(spoken, codec.decode(whole).waveform[0], atol=1e-5, rtol=1e-5)


def test_noise_goes_on_where_its_directions_begin_anew() -> None:
    codec = CODECS["content and noise"]
    codes = codec.encode(noise((PhaseNoise.PERIOD // 2 + 40) * HOP))
    spoken = torch.cat(list(codec.decode_long(codes, chunk_frames=37)))
    torch.testing.assert_close(spoken, codec.decode(codes).waveform[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", CODECS)
@torch.no_grad()
def test_speech_comes_as_soon_as_it_can(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk waits for the context behind it alone, and nothing is put aside for a backward recurrence."""
    codec, chunk, taken = CODECS[kind], 5, 0

    def none_wanted() -> None:
        raise AssertionError("a causal codec spools nothing")

    monkeypatch.setattr(long, "_Spool", none_wanted)

    def counted(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        nonlocal taken
        for at in range(0, len(rows), size):
            taken += 1
            yield rows[at : at + size]

    clip = noise(100 * HOP)
    latents = codec.encoder(clip[None])[0]
    for staged, rows, size in ((codec.encoder, clip, HOP), (codec.decoder, latents, 1)):
        taken, heard, waits = 0, 0, staged.before_context[1] + staged.after_context[1]
        for block in run_staged(staged, counted(rows, size), chunk):
            # Two stages, each of which works in chunks: the second may wait for one more of the first.
            assert taken <= min(heard + 2 * chunk + waits, 100)
            heard += len(block) // staged.rows_out
        assert heard == taken == 100


@pytest.mark.parametrize("kind", CODECS)
def test_a_clip_is_the_same_alone_and_in_a_batch(kind: str) -> None:
    codec, rng = CODECS[kind], np.random.default_rng(0)
    for mix in range(5):
        lengths = [1 + 31 * mix, *(int(n) for n in np.exp(rng.uniform(0, np.log(120 * HOP), 4)))]
        clips = [noise(n, seed=n) for n in lengths]
        together = codec.encode(clips)
        decoded = codec.decode(together).clips()
        for i, clip in enumerate(clips):
            alone = codec.encode(clip)
            mine = together.codes[i : i + 1, :, : alone.codes.shape[2]]
            assert differing_frames(codec, clip, alone.codes[0], mine[0]) <= 1
            spoken = codec.decode(mine, num_samples=[len(clip)]).waveform[0]
            torch.testing.assert_close(decoded[i], spoken, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_is_masked_in_the_content_branch() -> None:
    """Not only where clips go through the CPU in groups of a length: on a GPU and in training they are padded."""
    codec = CODECS["look-ahead"]
    frames = torch.tensor([40, 33, 7])
    lengths = frames * HOP - torch.tensor([0, 5, 31])
    batch = torch.stack([noise(40 * HOP, seed) for seed in range(3)])
    batch *= torch.arange(40 * HOP) < lengths[:, None]
    latents = codec.encoder(batch, lengths)
    dirty = torch.where((torch.arange(40) < frames[:, None])[..., None], latents, 9.0)
    spoken = codec.decoder(dirty, frames)
    for i, n in enumerate(frames.tolist()):
        alone = codec.encoder(batch[i : i + 1, : lengths[i]])
        torch.testing.assert_close(latents[i, :n], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(spoken[i, : n * HOP], codec.decoder(alone)[0], atol=1e-5, rtol=1e-5)


# ---- STFT and phase noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_fft", "hop"), [(32, 16), (64, 16), (640, 160)])
def test_the_inverse_of_a_causal_stft(n_fft: int, hop: int) -> None:
    stft, x = STFT(n_fft, hop, causal=True), torch.randn(2, 12 * hop, generator=torch.Generator().manual_seed(0))
    real, imag = stft(x)
    assert real.shape == (2, 12, n_fft // 2 + 1)
    back = stft.inverse(real, imag, None)
    assert back.shape == x.shape
    torch.testing.assert_close(back[:, :-hop], x[:, :-hop], atol=1e-5, rtol=1e-4)
    assert back[:, -hop:].square().mean() <= x[:, -hop:].square().mean(), "faded out, not blown up"
    assert (back[:, -hop:].abs() <= x[:, -hop:].abs() + 1e-5).all()


def test_a_causal_frame_ends_with_its_hop() -> None:
    stft, x = STFT(64, 16, causal=True), torch.randn(1, 160)
    other = x.clone()
    other[:, 80:] += 1.0
    (before, _), (after, _) = stft(x), stft(other)
    assert torch.equal(before[:, :5], after[:, :5]) and not torch.equal(before[:, 5], after[:, 5])


@pytest.mark.parametrize(("n_fft", "hop"), [(32, 16), (64, 16), (320, 160), (640, 160)])
def test_noise_in_the_frames_is_no_louder_at_the_end(n_fft: int, hop: int) -> None:
    """What a decoder gives is no STFT of a signal: the last hop must not divide its noise by a window near 0."""
    stft, generator = STFT(n_fft, hop, causal=True), torch.Generator().manual_seed(0)
    real, imag = torch.randn(2, 50, 20, n_fft // 2 + 1, generator=generator)
    spoken = stft.inverse(real, imag, None).unflatten(1, (20, hop))
    loudness = spoken.square().mean((0, 2)).sqrt()
    assert loudness[-1] <= 2 * loudness[8:12].mean(), "a window of 1/2 is the least that is divided by"
    mask = (torch.arange(20) < 12)[None, :, None].float().expand(50, -1, -1)
    masked = stft.inverse(real, imag, mask).unflatten(1, (20, hop))
    torch.testing.assert_close(masked[:, :12].flatten(1), stft.inverse(real[:, :12], imag[:, :12], None))


def test_phase_noise() -> None:
    noise = PhaseNoise(65, 0.4)
    assert torch.equal(noise.directions, PhaseNoise(65, 0.4).directions)
    lengths = noise.directions.square().sum(0).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.4))
    along, across = noise.directions.mean((1, 2)), noise.directions.flatten(1).T
    assert along.abs().max() < 0.01 and noise.directions.mean(1).abs().max() < 0.1, "no direction in all, nor in a bin"
    following = (noise.directions[:, 1:] * noise.directions[:, :-1]).sum(0).mean() / 0.16
    beside = (noise.directions[:, :, 1:] * noise.directions[:, :, :-1]).sum(0).mean() / 0.16
    assert abs(following) < 0.02 and abs(beside) < 0.02, "nor do neighbours agree"
    assert len(across.unique(dim=0)) > 0.99 * len(across)
    cosine, sine = torch.zeros(2, 1, 40, 65)
    parts = [noise(cosine[:, :25], sine[:, :25], 1000), noise(cosine[:, 25:], sine[:, 25:], 1025)]
    for whole, part in zip(noise(cosine, sine, 1000), zip(*parts, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(part, 1))


def test_decoding_repeats_bit_for_bit_and_noise_is_heard() -> None:
    codec = CODECS["content and noise"]
    encoded = codec.encode(noise(50 * HOP))
    first = codec.decode(encoded).waveform
    assert torch.equal(first, codec.decode(encoded).waveform)
    quiet = make_causal(content_blocks=2, synthesis_n_fft=HOP)
    assert quiet.state_dict().keys() == codec.state_dict().keys(), "the directions are in no checkpoint"
    quiet.load_state_dict(codec.state_dict())
    assert not torch.allclose(quiet.decode(encoded.codes).waveform, first, atol=1e-3)
    assert (first - quiet.decode(encoded.codes).waveform).abs().max() < 3 * first.abs().max()
