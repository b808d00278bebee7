"""Every kind of tokenizer; codecs of the hub are small random models that are saved to disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SPEECH, make_tiny
from vocable import audio
from vocable.codec.load import load_codec
from vocable.evaluation.tokenizers import NotAvailable, Tokenizer, load_tokenizer
from vocable.evaluation.tokenizers.programs import pipe


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return audio.read(SPEECH, 16_000)[0][:20_001]


def save_hub_codec(kind: str, folder: Path) -> None:
    import transformers

    torch.manual_seed(0)
    if kind == "encodec":
        config = transformers.EncodecConfig(
            num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16, num_lstm_layers=1
        )
        model = transformers.EncodecModel(config)
    elif kind == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4, decoder_hidden_size=64, hidden_size=64, n_codebooks=4, codebook_size=32
        )
        model = transformers.DacModel(config)
    elif kind == "mimi":
        config = transformers.MimiConfig(
            num_filters=4,
            hidden_size=32,
            codebook_size=32,
            codebook_dim=16,
            vector_quantization_hidden_dimension=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=32,
            num_quantizers=6,
            upsample_groups=32,
        )
        model = transformers.MimiModel(config)
    else:
        semantic = transformers.HubertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
        )
        acoustic = transformers.DacConfig(
            encoder_hidden_size=8,
            decoder_hidden_size=64,
            hidden_size=32,
            downsampling_ratios=[8, 5, 4, 2],
            upsampling_ratios=[8, 5, 4, 2],
        )
        config = transformers.XcodecConfig(
            acoustic_model_config=acoustic, semantic_model_config=semantic, codebook_size=32, codebook_dim=64
        )
        model = transformers.XcodecModel(config)
    for name, buffer in model.named_buffers():  # fresh codebooks may be all zero
        if name.endswith("embed") or name.endswith("embed_sum"):
            buffer.normal_()
    model.save_pretrained(folder)


def check(tok: Tokenizer, speech: np.ndarray) -> torch.Tensor:
    tokens = tok.encode(speech)
    assert tokens.num_samples == len(speech) and tokens.bits > 0
    decoded = tok.decode(tokens)
    assert decoded.dtype == np.float32 and abs(len(decoded) - len(speech)) <= 16_000 / tok.frame_rate
    assert tokens.codes is not None and tokens.codes.dtype == torch.int64
    vectors = tok.embed(tokens.codes)
    assert vectors.shape[0] == tokens.codes.shape[1] and vectors.dtype == torch.float32
    assert tokens.codes.shape[1] == pytest.approx(len(speech) / 16_000 * tok.frame_rate, abs=2)
    assert tok.bitrate * len(speech) / 16_000 == pytest.approx(tokens.bits, rel=0.05)
    return tokens.codes


@pytest.mark.parametrize("layers", ["", "@:1", "@1:8", "@:8"])
def test_a_speech_tokenizer(tmp_path: Path, speech: np.ndarray, layers: str) -> None:
    tok = make_tiny()
    tok.save_pretrained(tmp_path)
    codes = check(load_tokenizer(f"{tmp_path}{layers}"), speech)
    chosen = {"": slice(0, 8), "@:1": slice(0, 1), "@1:8": slice(1, 8), "@:8": slice(0, 8)}[layers]
    torch.testing.assert_close(codes, tok.encode(speech).codes[0, chosen])


@pytest.mark.parametrize("kind", ["encodec", "dac", "mimi", "xcodec"])
def test_hub_codecs(tmp_path: Path, speech: np.ndarray, kind: str) -> None:
    save_hub_codec(kind, tmp_path)
    whole = load_tokenizer(f"{kind}:{tmp_path}")
    codes = check(whole, speech)
    long = whole.encode(np.tile(speech, 16)).codes  # 20 s: a rate that is rounded drifts by half a second
    assert long is not None and long.shape[1] == pytest.approx(20 * whole.frame_rate, abs=1.5)
    first = check(load_tokenizer(f"{kind}:{tmp_path}@:1"), speech)
    torch.testing.assert_close(first, codes[:1])
    # The first two layers' vectors are what the later ones are added to.
    if len(codes) > 1 and kind != "mimi":
        two = load_tokenizer(f"{kind}:{tmp_path}@:2")
        assert two.bitrate == pytest.approx(2 * load_tokenizer(f"{kind}:{tmp_path}@:1").bitrate)
    if kind != "encodec":  # a `Codec`, which has any choice of layers
        with pytest.raises(ValueError, match="begin with the first"):
            load_tokenizer(f"{kind}:{tmp_path}@1:2")


def test_encodec_is_the_codec_of_that_name(tmp_path: Path, speech: np.ndarray) -> None:
    save_hub_codec("encodec", tmp_path)
    codec = load_codec(f"encodec:{tmp_path}")
    tok = load_tokenizer(f"encodec:{tmp_path}@1:4")
    tokens = tok.encode(speech)
    assert tok.made_by == codec.id and tok.bitrate == codec.bitrate(slice(1, 4)) and len(tok.codebook_sizes) == 3
    torch.testing.assert_close(tokens.codes, codec.encode(speech, sample_rate=16_000).codes[0, 1:4])
    expected = codec.decode(tokens.codes[None], layers=slice(1, 4)).waveform[0].numpy()
    found, expected = tok.decode(tokens), audio.resample(expected, codec.sample_rate, 16_000)
    # The ends differ: without the clip's length, the last frame is decoded whole.
    np.testing.assert_allclose(found[:19_500], expected[:19_500], atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["encodec", "dac", "mimi", "xcodec"])
def test_weights_that_are_not_available(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAvailable, match=r"weights not available|no EnCodec model in this folder"):
        load_tokenizer(f"{kind}:{tmp_path / 'none'}")


def test_a_codec_that_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="no such folder"):
        load_tokenizer(str(tmp_path / "none"))


def test_a_codec_gives_a_clip_its_level_back(tmp_path: Path, speech: np.ndarray) -> None:
    make_tiny(level=-26.0).save_pretrained(tmp_path)
    tok = load_tokenizer(str(tmp_path))
    loud, quiet = (tok.decode(tok.encode(factor * speech)) for factor in (1.0, 0.25))  # a power of two: no rounding
    np.testing.assert_allclose(quiet, 0.25 * loud, rtol=1e-3, atol=1e-6)


def test_units(tmp_path: Path, speech: np.ndarray) -> None:
    from semantic.test_teacher import save_teacher
    from vocable.corpus.manifest import Utterance, write_manifest
    from vocable.semantic.cache import FeatureCache, extract
    from vocable.semantic.teacher import Teacher
    from vocable.semantic.units import make_units
    from vocable.training.vocoder import VocoderTrainer, vocoder_recipe

    save_teacher("whisper", tmp_path / "teacher")
    audio.write(tmp_path / "a.wav", np.tile(speech, 3), 16_000)
    clips = [Utterance("a", tmp_path / "a.wav", 3 * len(speech) / 16_000)]
    write_manifest(tmp_path / "train.jsonl", clips)
    extract(Teacher(str(tmp_path / "teacher"), 1), clips, tmp_path / "features")
    make_units(FeatureCache(tmp_path / "features"), tmp_path / "units", 8)
    with pytest.raises(NotAvailable, match="no vocoder"):
        load_tokenizer(f"units:{tmp_path / 'units'}")
    plan = vocoder_recipe(tmp_path / "units", manifest=tmp_path / "train.jsonl")
    VocoderTrainer(plan, tmp_path / "vocoder", max_time=1.0).run()
    tok = load_tokenizer(f"units:{tmp_path / 'units'}")
    codes = check(tok, speech)
    assert len(codes) == 1 and int(codes.max()) < 8
    assert tok.bitrate == 50 * math.log2(8)


def test_opus_and_codec_2(speech: np.ndarray) -> None:
    if not all(map(shutil.which, ("opusenc", "c2enc"))):
        pytest.skip("opus-tools and codec2 are not installed")
    for name, nominal in (("opus:12", 12_000), ("codec2:3200", 3_200)):
        tok = load_tokenizer(name)
        tokens = tok.encode(speech)
        decoded = tok.decode(tokens)
        assert tokens.bits / len(speech) * 16_000 == pytest.approx(nominal, rel=0.2)
        assert np.abs(len(decoded) - len(speech)) < 2_000
        size = min(len(decoded), len(speech))
        assert np.corrcoef(np.abs(decoded[:size]), np.abs(speech[:size]))[0, 1] > 0.3  # in time with each other


@pytest.mark.parametrize("spec", ["opus", "opus:x", "recording@:1", "fast@1", "opus:6@:1"])
def test_names_without_meaning(spec: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_tokenizer(spec)
    assert not isinstance(caught.value, NotAvailable), "a table would pass over it"


def test_the_name_fast_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_tiny().save_pretrained("fast")
    assert load_tokenizer("fast@:1").made_by.startswith("fast-")
    assert load_tokenizer("./fast@:1").made_by == make_tiny().id


def test_the_message_of_a_program_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cat failed with exit code 1: .*No such file"):
        pipe(f"cat {tmp_path}/none")
