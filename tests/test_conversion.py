"""Voice conversion by swapping layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from conftest import make_tiny, run_command
from vocable.audio import MADE_BY_MACHINE, AudioError
from vocable.conversion import fill_layers, swap_layers


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
    torch.testing.assert_close(converted.waveform, tok.decode(codes, [40_001], slice(0, 4)).waveform)


def test_all_above_rvq_1_unless_told(tok) -> None:
    source, reference = noise(16_000, 0), noise(16_000, 1)
    a = swap_layers(tok, source, reference).waveform
    torch.testing.assert_close(a, swap_layers(tok, source, reference, layers=slice(1, 8)).waveform)
    # With its own layers a clip is just reconstructed.
    torch.testing.assert_close(swap_layers(tok, source, source).waveform, tok.reconstruct(source).waveform)


def test_rates(tok) -> None:
    converted = swap_layers(tok, noise(44_100, 0), noise(24_000, 1), 44_100, 24_000)
    assert converted.waveform.shape == (1, 16_000)


@pytest.mark.parametrize("layers", [slice(0, 4), slice(4, 2), slice(1, 9), slice(8, 9)])
def test_layers_that_make_no_sense(tok, layers: slice) -> None:
    with pytest.raises(ValueError, match="1:2 to 1:8"):
        swap_layers(tok, noise(16_000, 0), noise(16_000, 1), layers=layers)


def test_a_reference_too_short_or_two_of_them(tok) -> None:
    with pytest.raises(ValueError, match="a second or more"):
        swap_layers(tok, noise(16_000, 0), noise(15_000, 1))
    with pytest.raises(ValueError, match="one source"):
        swap_layers(tok, noise(16_000, 0), np.stack([noise(16_000, 1)] * 2))


def test_the_layers_that_a_model_writes(uslm) -> None:
    source, reference = noise(40_001, 0), noise(50_000, 1)
    converted = fill_layers(uslm.codec, uslm.models, source, reference)
    assert converted.waveform.shape == (1, 40_001)
    content, voice = uslm.codec.encode(source).codes[0, 0], uslm.prepare_voice(reference).codes[0]
    codes = uslm.nar.fill(content, voice)
    torch.testing.assert_close(converted.waveform, uslm.codec.decode(codes[None], [40_001]).waveform)
    with pytest.raises(AudioError, match="a voice takes a second"):
        fill_layers(uslm.codec, uslm.models, source, noise(8000, 1))
    alone = dataclasses.replace(uslm.models, nar=None)
    with pytest.raises(ValueError, match="no NAR"):
        fill_layers(uslm.codec, alone, source, reference)


def test_the_command(uslm_folders, tmp_path, capsys) -> None:
    models, codec = uslm_folders
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", noise(32_000, i), 16_000)
    call = ["convert", tmp_path / "0.wav", tmp_path / "1.wav", "-m", codec, "-o", tmp_path / "out.wav"]
    assert run_command(*call, "--method", "nar", "--models", models) == 0
    by_model = soundfile.read(tmp_path / "out.wav")[0]
    assert run_command(*call, "--layers", "1:2") == 0
    with soundfile.SoundFile(tmp_path / "out.wav") as file:
        assert file.comment == MADE_BY_MACHINE
        assert file.frames == len(by_model) == 32_000 and not np.array_equal(file.read(), by_model)
    assert run_command(*call, "--models", models) == 2
    assert "--models is for --method nar" in capsys.readouterr().err
