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
from vocable.lock import one_at_a_time
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.teacher import Teacher, canonical_layer, pack

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
#: Layer norm in the front, so that each frame stands for itself and the test of alignment has something to see.
FRONT = {
    "feat_extract_norm": "layer",
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 3,
    "conv_pos_kernel_size": 3,  # data2vec's
    "num_conv_pos_embedding_groups": 2,
}


FAMILIES = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "data2vec-audio": "Data2VecAudio"}


def save_teacher(kind: str, folder: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    if kind.startswith("whisper"):
        sizes = {"d_model": 16, "encoder_layers": 2, "num_mel_bins": 20, "max_source_positions": 100} | changes
        config = transformers.WhisperConfig(
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            **sizes,
        )
        model = transformers.WhisperModel(config)
        (model.get_encoder() if kind == "whisper encoder" else model).save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    else:
        config = getattr(transformers, f"{FAMILIES[kind]}Config")(**SMALL | FRONT | changes)
        getattr(transformers, f"{FAMILIES[kind]}Model")(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


KINDS = ["whisper", "whisper encoder", *FAMILIES]


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
    torch.testing.assert_close(Teacher(name, [2, 0])([noise(8000)])[0], (states[0] + states[2]) / 2)
    for beyond in (3, [1, 3], -1):
        with pytest.raises(ValueError, match="layer must be 0 to 2"):
            Teacher(name, beyond)


def test_whisper_keeps_the_blocks_that_it_needs(tmp_path: Path) -> None:
    """And one more: the last one's output has passed the final layer norm, and no other state has."""
    name = str(save_teacher("whisper", tmp_path, encoder_layers=5))
    whole = Teacher(name, "avg")
    mel = whole.features(noise(8000), sampling_rate=16_000, return_tensors="pt").input_features
    states = whole.model(mel, output_hidden_states=True).hidden_states
    assert len(whole.model.layers) == 5 and len(states) == 6
    for layer, kept in ((0, 1), (2, 3), ([1, 3], 4), (4, 5), (5, 5)):
        teacher = Teacher(name, layer)
        assert len(teacher.model.layers) == kept
        numbers = layer if isinstance(layer, list) else [layer]
        wanted = torch.stack([states[n] for n in numbers]).mean(0)
        found = teacher._select(teacher.model(mel, output_hidden_states=True))
        torch.testing.assert_close(found, wanted)


def test_layers_have_one_form() -> None:
    assert canonical_layer([6, 2, 6]) == canonical_layer((2, 6)) == (2, 6)
    assert canonical_layer([9]) == canonical_layer(9) == 9 and canonical_layer("avg") == "avg"
    for wrong in ("9", []):
        with pytest.raises(ValueError, match="a number, a list of numbers or 'avg'"):
            canonical_layer(wrong)


def test_twelve_layers_as_hubert_base_has(tmp_path: Path) -> None:
    """Layer 9 is what the ninth block puts out, and avg has all thirteen states."""
    name = str(save_teacher("hubert", tmp_path, num_hidden_layers=12))
    teacher = Teacher(name, 9)
    put_out = []
    for block in teacher.model.encoder.layers:
        block.register_forward_hook(lambda block, given, out: put_out.append(out[0] if isinstance(out, tuple) else out))
    into = []
    teacher.model.encoder.layers[0].register_forward_pre_hook(lambda block, given: into.append(given[0]))
    ninth = teacher([noise(8000)])[0]
    assert len(put_out) == 12
    torch.testing.assert_close(ninth, put_out[8][0])
    torch.testing.assert_close(Teacher(name, "avg")([noise(8000)])[0], torch.cat(into + put_out).mean(0))


def test_what_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no teacher at"):
        Teacher(str(tmp_path / "absent"), 1)
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'bert' model; a teacher is one of"):
        Teacher(str(tmp_path), 1)
    save_teacher("wavlm", tmp_path, conv_stride=(5, 2, 2, 2, 2, 2, 1))
    with pytest.raises(ValueError, match="its frames are not the codec's"):
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


def test_layer_of_a_cache(corpus: list[Utterance], tmp_path: Path) -> None:
    name = str(save_teacher("hubert", tmp_path / "teacher"))
    for _ in range(2):  # the second time goes on with the first
        extract(Teacher(name, [2, 1]), corpus[:2], tmp_path / "cache")
    assert FeatureCache(tmp_path / "cache").layer == (1, 2)
    with pytest.raises(ValueError, match="begun with another teacher, layer or manifest"):
        extract(Teacher(name, [0, 1]), corpus[:2], tmp_path / "cache")


def test_damaged_caches(corpus: list[Utterance], tmp_path: Path) -> None:
    extract(Teacher(str(save_teacher("hubert", tmp_path / "teacher")), 1), corpus, tmp_path / "cache")
    shard, index = tmp_path / "cache" / "00000.npy", tmp_path / "cache" / "index.json"
    whole, known = shard.read_bytes(), index.read_text()
    for content in (whole[:-100], b""):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=r"00000.npy: missing or damaged; delete it"):
            FeatureCache(tmp_path / "cache")
    np.save(shard, np.zeros((7, 16), np.float16))
    with pytest.raises(ValueError, match=r"7 frames, not the"):
        FeatureCache(tmp_path / "cache")
    shard.write_bytes(whole)
    np.save(shard, np.load(shard).astype(np.float32))
    with pytest.raises(ValueError, match=r"not float16 of 16 dimensions"):
        FeatureCache(tmp_path / "cache")
    shard.write_bytes(whole)
    negative = known.replace("[0, 0, ", "[0, -1, ", 1)
    assert negative != known
    for content in ("{", "[]", "{}", "[" * 100_000, known.replace("mean", "median"), negative):
        index.write_text(content)
        with pytest.raises(ValueError, match=r"index.json: not the index of a feature cache"):
            FeatureCache(tmp_path / "cache")


def test_features_that_float16_does_not_hold(
    corpus: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher(str(save_teacher("hubert", tmp_path / "teacher")), 1)
    for value in (70_000.0, float("nan")):
        monkeypatch.setattr(Teacher, "__call__", lambda self, w, v=value: [torch.full((3, 16), v) for _ in w])
        with pytest.raises(ValueError, match=r"0.wav: layer 1 of .* which float16 does not hold"):
            extract(teacher, corpus, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_one_run_in_a_cache(corpus: list[Utterance], tmp_path: Path) -> None:
    teacher = Teacher(str(save_teacher("hubert", tmp_path / "teacher")), 1)
    with one_at_a_time(tmp_path / "cache"), pytest.raises(ValueError, match="another run uses this folder"):
        extract(teacher, corpus, tmp_path / "cache")
