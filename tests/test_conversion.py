"""Voice conversion: by swapping layers, and by the NAR of language models."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from conftest import make_tiny, run_command
from vocable.audio import MADE_BY_MACHINE, AudioError
from vocable.codec.tokens import TokensError
from vocable.conversion import VoiceConverter, swap_layers


@pytest.fixture(scope="module")
def tok():
    return make_tiny()


def noise(samples: int, seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)


@pytest.mark.parametrize("reference_samples", [16_000, 23_456, 60_000])
def test_codes_are_the_source_s_below_and_the_reference_s_above(tok, reference_samples: int) -> None:
    source, reference = noise(40_001, 0), noise(reference_samples, 1)
    converted = swap_layers(tok, source, reference, layers=slice(1, 4))
    assert converted.waveform.shape == (1, 40_001)
    content, voice = tok.encode(source).codes[0], tok.encode(reference).codes[0]
    frames = torch.arange(content.shape[1]) % voice.shape[1]  # cut, or repeated
    codes = torch.cat([content[:1], voice[1:4, frames]])[None]
    torch.testing.assert_close(converted.waveform, tok.decode(codes, num_samples=[40_001], layers=slice(0, 4)).waveform)


def test_all_above_rvq_1_unless_told(tok) -> None:
    source, reference = noise(16_000, 0), noise(16_000, 1)
    a = swap_layers(tok, source, reference).waveform
    torch.testing.assert_close(a, swap_layers(tok, source, reference, layers=slice(1, 8)).waveform)
    # With its own layers a clip is just reconstructed.
    torch.testing.assert_close(swap_layers(tok, source, source).waveform, tok.reconstruct(source).waveform)


def test_rates(tok) -> None:
    converted = swap_layers(tok, noise(44_100, 0), noise(24_000, 1), sample_rate=44_100, reference_sample_rate=24_000)
    assert converted.waveform.shape == (1, 16_000)


@pytest.mark.parametrize("layers", [slice(0, 4), slice(4, 2), slice(1, 9), slice(8, 9), slice(1, 4, 2), 2, "1:4"])
def test_layers_that_make_no_sense(tok, layers: slice) -> None:
    with pytest.raises(ValueError, match=r"layers above RVQ-1|does not select|layers is a slice"):
        swap_layers(tok, noise(16_000, 0), noise(16_000, 1), layers=layers)


def test_a_reference_too_short_or_two_of_them(tok) -> None:
    with pytest.raises(ValueError, match="a second or more"):
        swap_layers(tok, noise(16_000, 0), noise(15_000, 1))
    with pytest.raises(ValueError, match="one source"):
        swap_layers(tok, noise(16_000, 0), np.stack([noise(16_000, 1)] * 2))


def test_the_layers_that_a_model_writes(uslm) -> None:
    converter = VoiceConverter(uslm.codec, uslm.models)
    source, reference = noise(40_001, 0), noise(50_000, 1)
    voice = converter.prepare_voice(reference)
    converted = converter.convert(source, voice).waveform
    assert converted.shape == (1, 40_001)
    torch.testing.assert_close(converter.convert(source, reference).waveform, converted)
    content = uslm.codec.encode(source).codes[0]
    codes = uslm.nar.fill(content[0], voice.codes[0])
    torch.testing.assert_close(converted, uslm.codec.decode(codes[None], num_samples=[40_001]).waveform)
    # What is said, where it is known, is told to the model.
    told = converter.convert(source, voice, text="a few words.").waveform
    symbols = uslm.models.align(uslm.codec, content, "a few words.")
    with pytest.warns(UserWarning, match="trained on language 'en', and the text is in 'de'"):
        converter.convert(source, voice, text="a few words.", language="de")
    assert len(symbols) == content.shape[1] and not torch.equal(told, converted)
    codes = uslm.nar.fill(content[0], voice.codes[0], symbols)
    torch.testing.assert_close(told, uslm.codec.decode(codes[None], num_samples=[40_001]).waveform)


def test_eight_threads_share_a_converter(uslm) -> None:
    converter = VoiceConverter(uslm.codec, uslm.models)
    voices = [converter.prepare_voice(noise(20_000 + 3_000 * i, i)) for i in range(3)]

    def one(i: int) -> torch.Tensor:
        text = "a few words." if i % 2 else None
        return converter.convert(noise(16_000 + 1_000 * i, i), voices[i % 3], text=text).waveform

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, [*range(8)] * 2))
    alone = [one(i) for i in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(alone * 2, together, strict=True))


def test_what_a_converter_refuses(uslm, tok) -> None:
    converter = VoiceConverter(uslm.codec, uslm.models)
    source, voice = noise(16_000, 0), converter.prepare_voice(noise(16_000, 1))
    with pytest.raises(AudioError, match="a voice needs a second"):
        converter.prepare_voice(noise(8000, 1))
    with pytest.raises(TokensError, match="a voice of tokens-"):
        converter.convert(source, tok.encode(source))
    with pytest.raises(ValueError, match="too few for"):
        converter.convert(source, voice, text="many words " * 20)
    with pytest.raises(ValueError, match="one source"):
        converter.convert(np.stack([source] * 2), voice)
    with pytest.raises(ValueError, match="no aligner"):
        VoiceConverter(uslm.codec, dataclasses.replace(uslm.models, aligner=None)).convert(source, voice, text="a")
    with pytest.raises(ValueError, match="no NAR"):
        VoiceConverter(uslm.codec, dataclasses.replace(uslm.models, nar=None))


def test_the_command(uslm_folders, tmp_path, capsys) -> None:
    models, codec = uslm_folders
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", noise(32_000, i), 16_000)
    call = ["convert", tmp_path / "0.wav", tmp_path / "1.wav", "-m", codec, "-o", tmp_path / "out.wav"]
    assert run_command(*call, "--models", models) == 0
    by_model = soundfile.read(tmp_path / "out.wav")[0]
    converter = VoiceConverter.from_pretrained(models, codec=codec)
    source, reference = (soundfile.read(tmp_path / f"{i}.wav", dtype="float32")[0] for i in range(2))
    expected = converter.convert(source, converter.prepare_voice(reference)).waveform[0].clamp(-1, 1)
    np.testing.assert_allclose(by_model, expected, atol=1e-4)  # 16 bits
    told = []
    for guidance in ([], ["--guidance", 0]):
        assert run_command(*call, "--models", models, "--text", "some words.", *guidance) == 0
        told.append(soundfile.read(tmp_path / "out.wav")[0])
    assert not np.array_equal(told[0], by_model) and not np.array_equal(*told)
    assert run_command(*call, "--method", "swap", "--layers", "1:2") == 0
    with soundfile.SoundFile(tmp_path / "out.wav") as file:
        assert file.comment == MADE_BY_MACHINE
        assert file.frames == len(by_model) == 32_000 and not np.array_equal(file.read(), by_model)
    for option, value in (("--models", models), ("--text", "some words."), ("--language", "en"), ("--guidance", 0)):
        assert run_command(*call, "--method", "swap", option, value) == 2
        assert f"{option} is for --method nar" in capsys.readouterr().err
    for bad, why in (
        (["--layers", "1:2"], "--layers is for --method swap"),
        (["-o", tmp_path / "out.xyz"], "name the output .wav"),
    ):
        assert run_command(*call, *bad) == 2
        assert why in capsys.readouterr().err
