"""Teachers are small random models saved to disk: the loading code is the one that hub names go through."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.distillation import d_axis_loss
from vocable.semantic.teacher import Teacher, pack

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
#: Layer norm in the front, so that each frame stands for itself and the test of alignment has something to see.
FRONT = {
    "feat_extract_norm": "layer",
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 3,
    "num_conv_pos_embedding_groups": 2,
}


def save_teacher(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    if kind.startswith("whisper"):
        config = transformers.WhisperConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            num_mel_bins=20,
            max_source_positions=100,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        model = transformers.WhisperModel(config)
        (model.get_encoder() if kind == "whisper encoder" else model).save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    else:
        family = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2"}[kind]
        config = getattr(transformers, f"{family}Config")(**SMALL, **FRONT)
        getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


KINDS = ["whisper", "whisper encoder", "hubert", "wavlm", "wav2vec2"]


@pytest.fixture(scope="module", params=KINDS)
def teacher_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(request.param, tmp_path_factory.mktemp(request.param.replace(" ", "-")))


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=samples).astype(np.float32)


def test_one_frame_for_each_codec_frame(teacher_folder: Path) -> None:
    teacher = Teacher(str(teacher_folder), layer=1)
    lengths = [16_000, 16_001, 15_999, 16_079, 700, 90_000]  # the last is longer than a window of this Whisper
    for length, features in zip(lengths, teacher([noise(n) for n in lengths]), strict=True):
        assert features.shape == (-(-length // 320), 16) and features.dtype == torch.float32
        assert torch.isfinite(features).all()


def test_frames_are_centred_where_the_codec_s_are(teacher_folder: Path) -> None:
    """A click in the middle of frame t changes the features of frame t most."""
    teacher = Teacher(str(teacher_folder), layer=0)
    quiet = 0.01 * noise(16_000)
    for frame in (3, 20, 44):
        clicked = quiet.copy()
        clicked[320 * frame + 160] += 0.5
        a, b = teacher([quiet])[0], teacher([clicked])[0]
        assert int((a - b).norm(dim=1).argmax()) == frame


def test_layers(teacher_folder: Path) -> None:
    name = str(teacher_folder)
    states = [Teacher(name, layer)([noise(8000)])[0] for layer in (0, 1, 2)]
    assert not torch.allclose(states[1], states[2])
    torch.testing.assert_close(Teacher(name, "avg")([noise(8000)])[0], torch.stack(states).mean(0))
    with pytest.raises(ValueError, match="layer must be 0 to 2"):
        Teacher(name, 3)


def test_what_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no teacher at"):
        Teacher(str(tmp_path / "absent"), 1)
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert' model; a teacher is one of"):
        Teacher(str(tmp_path), 1)


@given(st.lists(st.integers(1, 99), max_size=60))
def test_pack_holds_everything_once_and_nothing_overlaps(lengths: list[int]) -> None:
    windows = pack(lengths, 100)
    assert sorted(item for window in windows for item, _ in window) == list(range(len(lengths)))
    for window in windows:
        spans = sorted((start, start + lengths[item]) for item, start in window)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
        assert all(start >= 1 and stop <= 100 for start, stop in spans)
    if lengths:
        assert len(windows) <= 2 * -(-(sum(lengths) + len(lengths)) // 100)


@pytest.fixture
def corpus(tmp_path: Path) -> list[Utterance]:
    import soundfile

    rows = []
    for i in range(9):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, noise(4000 + 999 * i, seed=i), 16_000, subtype="FLOAT")
        rows.append(Utterance(str(i), path, (4000 + 999 * i) / 16_000))
    return rows


def test_cache(corpus: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vocable import audio
    from vocable.semantic import cache as module

    monkeypatch.setattr(module, "SHARD_SECONDS", 1.0)
    teacher = Teacher(str(save_teacher("hubert", tmp_path / "teacher")), layer=2)
    extract(teacher, corpus, tmp_path / "cache")
    cache = FeatureCache(tmp_path / "cache")
    features = [teacher([audio.read(u.path)[0]])[0].numpy() for u in corpus]
    mean = np.concatenate(features).mean(0)
    for utterance, expected in zip(corpus, features, strict=True):
        found = cache(utterance.id, 0, len(expected) + 3)
        np.testing.assert_allclose(found[:-3], expected - mean, atol=5e-3)
        assert not found[-3:].any()
        np.testing.assert_allclose(cache(utterance.id, 5, 4), expected[5:9] - mean, atol=5e-3)
    assert "3" in cache and "9" not in cache

    # Interrupted: the shards that stand are kept, the missing one is made again, and the whole is the same.
    before = {p.name: p.read_bytes() for p in (tmp_path / "cache").iterdir()}
    (tmp_path / "cache" / "00001.npy").unlink()
    (tmp_path / "cache" / "index.json").unlink()
    with pytest.raises(ValueError, match="no complete feature cache"):
        FeatureCache(tmp_path / "cache")
    calls = []
    monkeypatch.setattr(
        Teacher, "_waveform_model", lambda self, w, f=Teacher._waveform_model: calls.append(1) or f(self, w)
    )
    extract(teacher, corpus, tmp_path / "cache")
    assert len(calls) == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "cache").iterdir()} == before
    with pytest.raises(ValueError, match="begun with another"):
        extract(teacher, corpus[1:], tmp_path / "cache")
    assert json.loads((tmp_path / "cache" / "index.json").read_text())["dimension"] == 16


def test_d_axis_loss_has_the_paper_s_floor_and_start() -> None:
    teacher = torch.randn(3, 50, 7)
    assert d_axis_loss(2.5 * teacher, teacher).item() == pytest.approx(0.3133, abs=1e-3)
    assert d_axis_loss(-teacher, teacher).item() == pytest.approx(1.3133, abs=1e-3)
    quarter = torch.arange(50) * torch.pi / 25
    a, b = quarter.sin()[None, :, None], quarter.cos()[None, :, None]
    assert d_axis_loss(a, b).item() == pytest.approx(0.6931, abs=1e-3)
    # The axis is time: swapping features leaves nothing, shifting a feature in time does.
    assert d_axis_loss(teacher.roll(1, 1), teacher) > 0.6
