"""Voice conversion while the source comes."""

from __future__ import annotations

import pytest
import torch

from codec.test_causal import HOP, first_change, make_causal, noise
from conftest import LETTERS, make_tiny_uslm
from vocable.conversion import VoiceConverter
from vocable.conversion_stream import ConversionStream
from vocable.lm.model import LanguageModels
from vocable.lm.nar import NAR, NARConfig, codebooks_of
from vocable.lm.symbols import SymbolTable
from vocable.lm.transformer import TransformerConfig

SIZES = {"block": 5, "before": 6, "after": 3}


@pytest.fixture(scope="module")
def converter() -> VoiceConverter:
    fields = {"synthesis_n_fft": HOP, "encoder_look_ahead": 2, "content_blocks": 1}
    codec = make_causal(codec={"level": -26.0, "high_pass": 40.0}, **fields)
    torch.manual_seed(0)
    transformer = TransformerConfig(dim=16, layers=1, heads=2, hidden=16, stages=2)
    nar = NAR(NARConfig(3, 32, 32, len(LETTERS), transformer, frame_rate=codec.frame_rate), codebooks_of(codec))
    for parameter in nar.parameters():
        parameter.data *= 8
    models = LanguageModels(codec.token_id, "characters", "en", SymbolTable(LETTERS), None, nar, None)
    return VoiceConverter(codec, models)


@pytest.fixture
def stream(converter: VoiceConverter) -> ConversionStream:
    voice = converter.codec.encode(noise(700 * HOP, 9))
    return converter.stream(voice, **SIZES)


def run(stream: ConversionStream, source: torch.Tensor, size: int) -> torch.Tensor:
    pieces = [stream.convert(source[i : i + size]).waveform[0] for i in range(0, len(source), size)]
    return torch.cat([*pieces, stream.flush().waveform[0]])


@pytest.mark.parametrize("samples", [1, 3 * HOP, 5 * HOP + 1, 31 * HOP - 7])
def test_as_many_samples_come_out_however_the_source_is_cut(stream: ConversionStream, samples: int) -> None:
    source = noise(samples)
    whole = run(stream, source, samples)
    assert len(whole) == samples and whole.abs().max() > 0
    for size in (11, HOP, 7 * HOP):
        assert torch.equal(run(stream, source, size), whole), "also on a stream that begins anew"


def test_the_result_is_that_of_the_nar_with_all_context(converter: VoiceConverter) -> None:
    source, voice = noise(20 * HOP), converter.codec.encode(noise(700 * HOP, 9))
    coder = converter.codec.stream()
    semantic = torch.cat([coder.encode(source).codes, coder.flush()[0].codes], 2)[0, 0]
    codes = converter.nar.fill(semantic, voice.codes[0])
    whole = converter.codec.decode(codes[None], restore_level=False).waveform[0]
    converted = run(converter.stream(voice, block=20, before=0, after=0), source, HOP)
    torch.testing.assert_close(converted, whole, atol=1e-5, rtol=0)


def test_the_delay(stream: ConversionStream) -> None:
    source = noise(60 * HOP)
    changed, at = source.clone(), 40 * HOP
    changed[at:] += 0.5
    first = first_change(run(stream, source, HOP), run(stream, changed, HOP))
    assert at - stream.delay <= first < at + HOP
    done = len(stream.convert(source).waveform[0])
    assert len(source) - stream.delay <= done, "speech comes no later"


def test_what_cannot_stream(converter: VoiceConverter) -> None:
    uslm = make_tiny_uslm()
    with pytest.raises(ValueError, match="trained on a causal codec"):
        VoiceConverter(uslm.codec, uslm.models).stream(noise(16_000))
    voice = converter.codec.encode(noise(700 * HOP, 9))
    for wrong in ({"block": 0}, {"before": -1}, {"after": 10**6}):
        with pytest.raises(ValueError, match="block is 1 or more"):
            converter.stream(voice, **SIZES | wrong)
