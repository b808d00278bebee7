from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_config
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.config import PRESETS, CodecConfig, SpectralConfig
from vocable.codec.model import SpeechTokenizer
from vocable.training.recipe import from_dict


def test_fields_that_came_later_are_left_out_at_their_defaults() -> None:
    """So that a codec of 0.2 keeps its id."""
    plain = PRESETS["fast"].to_dict()
    later = {"causal", "encoder_look_ahead", "decoder_look_ahead", "synthesis_n_fft", "content_blocks", "phase_noise"}
    assert not (later & set(plain["spectral"]) or {"level", "high_pass", "seanet"} & set(plain))
    assert set(plain["spectral"]) | later == {f.name for f in dataclasses.fields(SpectralConfig)}
    spectral = SpectralConfig(
        causal=True, encoder_look_ahead=1, decoder_look_ahead=2, synthesis_n_fft=320, content_blocks=1, phase_noise=0.5
    )
    config = CodecConfig(spectral=spectral, level=-26.0, high_pass=60.0)
    values = config.to_dict()
    assert values["level"] == -26.0 and values["high_pass"] == 60.0 and later <= set(values["spectral"])
    assert CodecConfig.from_dict(json.loads(json.dumps(values))) == config
    assert CodecConfig.from_dict(plain) == PRESETS["fast"]


def test_a_quarter_of_the_channels_is_content() -> None:
    assert PRESETS["fast"].content_dimension == PRESETS["paper"].content_dimension == 0
    assert CodecConfig(spectral=SpectralConfig(content_blocks=1)).content_dimension == 32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"causal": 1}, "causal must be true or false, not 1"),
        ({"causal": True, "encoder_look_ahead": -1}, "encoder_look_ahead must be a whole number, at least 0, not -1"),
        ({"causal": True, "decoder_look_ahead": 1.5}, "decoder_look_ahead must be a whole number, at least 0, not 1.5"),
        ({"encoder_look_ahead": 2}, "encoder_look_ahead is a field of causal codecs"),
        ({"decoder_look_ahead": 2}, "decoder_look_ahead is a field of causal codecs"),
        ({"causal": True, "encoder_look_ahead": 19}, "encoder_look_ahead must be at most 18"),
        ({"causal": True, "decoder_look_ahead": 13}, "decoder_look_ahead must be at most 12"),
        ({"content_blocks": -1}, "content_blocks must be a whole number, at least 0, not -1"),
        ({"synthesis_n_fft": -320}, "synthesis_n_fft must be a whole number, at least 0, not -320"),
        ({"synthesis_n_fft": 300}, "n_fft a multiple of half of it"),
        ({"phase_noise": -0.1}, "phase_noise must be a finite number, at least 0, not -0.1"),
        ({"phase_noise": float("nan")}, "phase_noise must be a finite number, at least 0, not nan"),
        ({"phase_noise": float("inf")}, "phase_noise must be a finite number, at least 0, not inf"),
        ({"phase_noise": "much"}, "phase_noise must be a finite number, at least 0, not 'much'"),
    ],
)
def test_wrong_spectral_parts_are_refused_in_a_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        CodecConfig.from_dict({"spectral": values})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("level", [float("nan"), float("-inf"), float("inf"), "-26", True])
def test_a_level_is_a_finite_number_or_none(level: object) -> None:
    with pytest.raises(ValueError, match=r"^level must be a finite number of dBov, or null, not .*$"):
        tiny_config(level=level)
    assert tiny_config(level=-26).level == -26 and tiny_config(level=None).level is None


@pytest.mark.parametrize("cutoff", [-1.0, 8000.0, float("nan"), float("inf"), "60", None])
def test_a_high_pass_filter_lies_below_half_the_rate(cutoff: object) -> None:
    with pytest.raises(ValueError, match=r"^high_pass must be 0 to less than 8000 Hz, not .*$"):
        tiny_config(high_pass=cutoff)
    assert tiny_config(high_pass=7999).high_pass == 7999 and tiny_config(sample_rate=24_000, high_pass=8000.0)


def test_recipes_give_the_same_answers() -> None:
    values = {"name": "x", "data": {"train": "a", "dev": "b"}, "codec": {"high_pass": 9000.0}}
    with pytest.raises(ValueError, match="high_pass must be 0 to less than 8000 Hz"):
        from_dict(values)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-x", "../up", "\x1b[2J", "a\nb", 5, None, ["x"], "é"])
def test_names_that_may_not_be_printed(name: object) -> None:
    with pytest.raises(ValueError, match=r"^name must be 1 to 64 letters") as refused:
        tiny_config(name=name)
    assert str(refused.value).isprintable()


def test_names_of_today() -> None:
    for name in ("fast", "fast-2", "paper", "tiny-paper", "uslm_2.1", "X"):
        assert tiny_config(name=name).name == name


SEANET = {"architecture": "seanet", "seanet": {}}


@pytest.mark.parametrize(
    "values",
    [
        {"codebook_size": 65_537},
        {"num_quantizers": 10**9},
        {"dimension": 10**9},
        {"semantic_dimension": 10**9},
        {"sample_rate": 10**9},
        {"hop_length": 10**9},
        *({"spectral": {"n_fft": n}} for n in (16_000, 64_000, 10**12)),
        {"spectral": {"synthesis_n_fft": 160_000}},
        *({"spectral": {f"{side}_blocks": 10**9}} for side in ("encoder_fine", "decoder_frame", "content")),
        *({"spectral": {name: 10**9}} for name in ("fine_dim", "frame_dim", "expansion")),
        {"spectral": {"kernel_size": 10**9 + 1}},
        {"spectral": {"phase_noise": 1e30}},
        *({**SEANET, "seanet": {name: 10**9}} for name in ("n_filters", "lstm_layers", "residual_layers")),
        *({**SEANET, "seanet": {name: 10**9}} for name in ("kernel_size", "residual_kernel_size", "dilation_base")),
        {**SEANET, "seanet": {"residual_layers": 40}},
        {**SEANET, "seanet": {"strides": [1] * 1000 + [320]}},
        {**SEANET, "seanet": {"strides": [10**9]}, "hop_length": 10**9},
        {"level": -1e6},
        {"level": 10**400},
        {"high_pass": 1e-9},
        {"high_pass": 7999.9999},
    ],
)
def test_sizes_have_bounds_so_that_a_file_cannot_take_all_memory(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be") as refused:
        CodecConfig.from_dict(values)
    assert "\n" not in str(refused.value)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="must be"):
        SpeechTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("values", [None, [], "fast", {"spectral": "fast"}, {"spectral": [1]}, {"architecture": []}])
def test_what_is_no_config(values: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        CodecConfig.from_dict(values)  # type: ignore[arg-type]
