"""EnCodec behind SpeechTokenizer's front door: transformers' own codes and speech, and speech models on its tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.audio import AudioError
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.encodec import Encodec
from vocable.codec.load import load_codec
from vocable.codec.tokens import TokensError
from vocable.corpus.manifest import Utterance, write_manifest
from vocable.lm.recipe import LMRecipe
from vocable.lm.train import LMTrainer
from vocable.lm.uslm import USLM
from vocable.training.recipe import build

transformers = pytest.importorskip("transformers")


def save_encodec(folder: Path, **changes: object) -> None:
    torch.manual_seed(0)
    sizes = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "codebook_dim": 16, "num_lstm_layers": 1}
    model = transformers.EncodecModel(transformers.EncodecConfig(**sizes, **changes))
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(std=0.3)  # a new one is all zeros, and any code is as good as another
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encodec")
    save_encodec(folder)
    return folder


@pytest.fixture(scope="module")
def codec(folder: Path) -> Encodec:
    codec = load_codec(f"encodec:{folder}")
    assert isinstance(codec, Encodec)
    return codec


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return audio.read(SPEECH, 24_000)[0][:30_001]


def test_codes_and_speech_are_transformers_own(codec: Encodec, speech: np.ndarray) -> None:
    encoded = codec.encode(speech)
    wave = torch.from_numpy(speech)[None, None]
    with torch.inference_mode():
        theirs = codec.model.encode(wave, bandwidth=max(codec.model.config.target_bandwidths)).audio_codes
        decoded = codec.model.decode(theirs[:, :, : codec.num_quantizers], [None]).audio_values[0, 0]
    assert torch.equal(encoded.codes, theirs[0][:, : codec.num_quantizers]) and len(encoded.codes.unique()) > 8
    ours = codec.decode(encoded).waveform[0]
    assert ours.shape == (30_001,)
    torch.testing.assert_close(ours, decoded[:30_001])


def test_batched_equals_single(codec: Encodec, speech: np.ndarray) -> None:
    clips = [speech[:length] for length in (1, 319, 9_000, 30_001)]
    batch = codec.encode(clips)
    assert batch.num_frames.tolist() == [-(-len(clip) // codec.hop_length) for clip in clips]
    for clip, together in zip(clips, batch.clips(), strict=True):
        alone = codec.encode(clip)
        assert torch.equal(alone.codes, together.codes)
        assert torch.equal(codec.encode(clip, layers=slice(1, 2)).codes, alone.codes[:, 1:2])
    spoken = codec.decode(batch)
    for clip, row in zip(clips, spoken.clips(), strict=True):
        torch.testing.assert_close(row, codec.decode(codec.encode(clip)).waveform[0])
    assert codec.encode(speech[:9_000], sample_rate=np.int64(48_000)).num_samples.tolist() == [4_500]
    for same in (speech[None, None], speech[None]):
        assert torch.equal(codec.encode(same).codes, codec.encode(speech).codes)
        assert torch.equal(codec.encode_long(same).codes, codec.encode(speech).codes)


def test_autocast_and_a_default_device_change_nothing(codec: Encodec, speech: np.ndarray) -> None:
    encoded = codec.encode(speech)
    decoded = codec.decode(encoded).waveform
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        assert torch.equal(codec.encode(speech).codes, encoded.codes)
        assert torch.equal(codec.decode(encoded.codes.numpy(), num_samples=[len(speech)]).waveform, decoded)


def test_commands_take_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, tokens = f"encodec:{folder}", tmp_path / "tokens.npz"
    assert run_command("encode", SPEECH, "-o", tokens, "-m", name) == 0
    assert run_command("decode", tokens, "-o", tmp_path / "decoded.wav", "-m", name) == 0
    assert run_command("reconstruct", SPEECH, "-o", tmp_path / "reconstructed.wav", "-m", name) == 0
    decoded, reconstructed = (audio.read(tmp_path / f"{name}.wav")[0] for name in ("decoded", "reconstructed"))
    assert np.array_equal(decoded, reconstructed)
    assert run_command("info", name, "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["id"].startswith("encodec-") and facts["parameters"]["decoder"] > 0


def test_what_it_refuses(codec: Encodec, folder: Path, speech: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TokensError, match="those of this codec are encodec-"):
        codec.decode(make_tiny().encode(speech))
    with pytest.raises(TokensError, match="2 rows"):
        codec.embed(codec.encode(speech).codes[:, :2])
    with pytest.raises(ValueError, match="does not select"):
        codec.encode(speech, layers=slice(2, 2))
    with pytest.raises(AudioError, match="cut it"):
        codec.encode_long(np.zeros(301 * 24_000, np.float32))
    with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
        load_codec(f"encodec:{folder}", device="cuda")
    with pytest.raises(ValueError, match="leave out compile and dtype"):
        load_codec("encodec:x", parts="encoder", compile=True, recurrence="float32", dtype=torch.bfloat16)
    codes = codec.encode(speech).codes
    for bad, why in (
        (codes + 32, "codes must be 0 to 31, found"),
        (codes - 32, "codes must be 0 to 31, found"),
        (codes.float(), "codes are integers"),
        (codes[0], r"shape \[B, K, T\]"),
        (codes.transpose(0, 1), r"give codes.transpose\(0, 1\)"),
        ([1], "not list"),
    ):
        for call in (codec.decode, codec.embed):
            with pytest.raises(TokensError, match=why):
                call(bad)
    with pytest.raises(AudioError, match="channels"):
        codec.encode(np.stack([speech, speech], 1))
    with pytest.raises(TokensError, match="the codes hold layers 1:2: choose layers among these, not 0:2"):
        codec.decode(codec.encode(speech, layers=slice(1, 2)), layers=slice(0, 2))
    with pytest.raises(CheckpointError, match="no EnCodec model in this folder"):
        load_codec(f"encodec:{tmp_path / 'nowhere'}")
    make_tiny().save_pretrained(tmp_path / "ours")
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    for other in ("ours", "bert"):
        with pytest.raises(CheckpointError, match="no EnCodec model in this folder"):
            load_codec(f"encodec:{tmp_path / other}")
    save_encodec(tmp_path, normalize=True)
    with pytest.raises(CheckpointError, match="use facebook/encodec_24khz"):
        load_codec(f"encodec:{tmp_path}")


def test_language_models_on_its_tokens(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tokenize, train, speak: VALL-E's scheme."""
    name = f"encodec:{folder}"
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(6):
        audio.write(tmp_path / f"{i}.wav", (0.1 * rng.normal(size=32_000)).astype(np.float32), 16_000)
        utterances.append(Utterance(str(i), tmp_path / f"{i}.wav", 2.0, f"s{i % 2}", "one two", language="en"))
    write_manifest(tmp_path / "train.jsonl", utterances)
    assert run_command("tokenize", tmp_path / "train.jsonl", "-m", name, "-o", tmp_path / "tokens") == 0
    data = {
        "tokens": str(tmp_path / "tokens"),
        "train": str(tmp_path / "train.jsonl"),
        "cache": str(tmp_path / "cache"),
    }
    data |= {"dev_tokens": data["tokens"], "dev": data["train"], "front_end": "characters", "batch_frames": 600}
    small = {"dim": 16, "layers": 1, "heads": 2, "hidden": 16}
    values = {"name": "valle", "data": data, "codec": name, "ar": small, "nar": small, "precision": "float32"}
    recipe = build(LMRecipe, values | {"aligner": {"steps": 20, "batch_frames": 300}, "max_steps": 2}, "recipe")
    LMTrainer(recipe, tmp_path / "run").run()
    uslm = USLM.from_pretrained(tmp_path / "run" / "model", codec=name)
    voice = uslm.prepare_voice(0.1 * rng.normal(size=48_000), sample_rate=24_000)
    speech = uslm.generate("two one", voice)
    assert speech.sample_rate == 24_000 and len(speech.waveform) == speech.codes.shape[1] * 320
    assert speech.codes.shape[0] == uslm.codec.num_quantizers
