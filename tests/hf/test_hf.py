"""Codecs in transformers: the results of the codec, the Auto classes, folders with code and without vocable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_tiny, make_tiny_paper
from vocable.codec.model import SpeechTokenizer

transformers = pytest.importorskip("transformers")
hf = pytest.importorskip("vocable.hf")

from vocable.hf.folder import export  # noqa: E402


def clips(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module", params=["spectral", "seanet", "level"])
def codec(request: pytest.FixtureRequest) -> SpeechTokenizer:
    if request.param == "seanet":
        return make_tiny_paper()
    return make_tiny(**({"level": -26.0, "high_pass": 40.0} if request.param == "level" else {}))


def test_round_trip_by_auto_classes(codec: SpeechTokenizer, tmp_path: Path) -> None:
    export(codec, tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(tmp_path / "model")
    features = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "model")
    assert isinstance(model, hf.VocableModel) and not model.training
    assert model.codec.id == codec.id, "weights and config"
    for name, constant in codec.named_buffers():
        torch.testing.assert_close(model.codec.get_buffer(name), constant, msg=name)
    batch = features(clips(5_000, 8_123, 640), sampling_rate=16_000, return_tensors="pt")
    assert batch["input_values"].shape == batch["padding_mask"].shape == (3, 8_123)
    output = model(**batch)
    for i, clip in enumerate(clips(5_000, 8_123, 640)):
        alone = codec.encode(torch.from_numpy(clip))
        frames = alone.codes.shape[2]
        assert torch.equal(output.audio_codes[i, :, :frames], alone.codes[0])
        assert output.audio_codes_mask[i].sum() == frames and not output.audio_codes[i, :, frames:].any()
        speech = codec.decode(alone).waveform[0]
        torch.testing.assert_close(output.audio_values[i, : len(clip)], speech, atol=1e-5, rtol=0)
        assert not output.audio_values[i, len(clip) :].any()
    fewer = model.encode(batch["input_values"], batch["padding_mask"], num_quantizers=1, return_dict=False)[0]
    assert torch.equal(fewer, output.audio_codes[:, :1])
    assert model.decode(fewer).audio_values.shape == (3, fewer.shape[2] * codec.hop_length)


def test_reduced_precision_keeps_the_quantizer(codec: SpeechTokenizer, tmp_path: Path) -> None:
    export(codec, tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    reference = SpeechTokenizer(codec.config)
    reference.load_state_dict(codec.state_dict())
    reference.eval().to(torch.bfloat16)
    assert torch.equal(model.codec.quantizer.codebooks, codec.quantizer.codebooks)
    clip = torch.from_numpy(clips(6_400)[0])[None]
    assert torch.equal(model.encode(clip).audio_codes, reference.encode(clip).codes)


def test_what_it_refuses(codec: SpeechTokenizer, tmp_path: Path) -> None:
    features = hf.VocableFeatureExtractor()
    with pytest.raises(ValueError, match="takes 16000 Hz, not 44100"):
        features(clips(100)[0], sampling_rate=44_100)
    with pytest.raises(ValueError, match="mono"):
        features([np.zeros((100, 2), np.float32)])
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "file").write_text("")
    with pytest.raises(ValueError, match="not an empty folder"):
        export(codec, tmp_path / "held")
    with pytest.raises(ValueError, match="typo"):
        hf.VocableConfig({"typo": 1})


def test_a_step_of_its_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = hf.VocableModel.from_codec(make_tiny(0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = [{"input_values": torch.from_numpy(clip)} for clip in clips(3_200, 3_200)]
    options = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, learning_rate=1e-3
    )
    trainer = transformers.Trainer(model, options, train_dataset=data)
    assert np.isfinite(trainer.train().training_loss)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert any(".encoder." in name for name in changed) and any(".decoder." in name for name in changed)


ALONE = """
import sys
class NoVocable:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "vocable":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoVocable())
import numpy as np
import transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
features = transformers.AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)
clip = np.load(sys.argv[2])
output = model(**features(clip, sampling_rate=16_000, return_tensors="pt"))
np.save(sys.argv[3], output.audio_codes.numpy())
assert "vocable" not in sys.modules
"""


@pytest.mark.slow  # a process that imports transformers
def test_without_vocable(codec: SpeechTokenizer, tmp_path: Path) -> None:
    export(codec, tmp_path / "model", with_code=True)
    (clip,) = clips(5_000)
    np.save(tmp_path / "clip.npy", clip)
    files = [tmp_path / "model", tmp_path / "clip.npy", tmp_path / "codes.npy"]
    found = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, files)],
        env={"HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert np.array_equal(np.load(files[2]), codec.encode(torch.from_numpy(clip)).codes.numpy())


def test_the_folder_says_how_it_is_loaded(tmp_path: Path) -> None:
    export(make_tiny(0), tmp_path / "model", with_code=True)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["model_type"] == "vocable" and config["codec"]["name"]
    for reference in config["auto_map"].values():
        module, _, name = reference.partition(".")
        assert f"class {name}" in (tmp_path / "model" / f"{module}.py").read_text()
    for path in (tmp_path / "model").glob("*.py"):
        assert "from vocable" not in path.read_text() and compile(path.read_text(), path.name, "exec")
