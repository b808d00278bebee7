"""The codec's frame t covers samples 320 t to 320 t + 319; so must what a teacher says of it, down the whole path.

Sounds are put at known samples, and the frames that hear them are looked for: in the convolutional fronts, which have a
sharp edge, and in the features that come with a training crop.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import ROOT
from semantic.test_teacher import FAMILIES, noise, save_teacher
from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.teacher import Teacher
from vocable.training.data import CropBatches
from vocable.training.recipe import Data, Quantizer, Recipe

#: Three seconds and a little: in the official code the last 79 of these lengths leave a crop of three seconds without a
#: teacher. Whole frames, half frames, one sample more or less.
LENGTHS = (48_000, 48_001, 48_040, 48_079, 48_159, 48_160, 48_161, 48_319, 48_320, 50_000)
CROP = 149  #: frames: crops of the shortest begin at frame 0 or 1


def whisper_base() -> Path:
    """The encoder of Whisper base with its real weights."""
    folder = Path(os.environ.get("VOCABLE_MODELS", ROOT / ".cache" / "models")) / "teacher" / "whisper-base-encoder"
    if not folder.is_dir():
        pytest.skip("Whisper base is not here: set VOCABLE_MODELS to the folder of the offline models")
    return folder


@pytest.mark.parametrize("kind", FAMILIES)
def test_fronts_hear_the_codec_s_frame_and_40_samples_on_either_side(kind: str, tmp_path: Path) -> None:
    teacher = Teacher(str(save_teacher(kind, tmp_path)), 0)
    heard: list[torch.Tensor] = []
    teacher.model.feature_extractor.register_forward_hook(lambda module, given, out: heard.append(out[0].T))
    quiet = noise(16_000 + 79)
    places = [5000, *range(6400, 8000, 160), 6400 + 39, 6400 + 40, 6400 - 40, 6400 - 41, 0, 16_078]
    for place in places:
        clicked = quiet.copy()
        clicked[place] += 5.0
        heard.clear()
        teacher([quiet]), teacher([clicked])
        frames = (heard[0] != heard[1]).any(1).nonzero().flatten().tolist()
        assert frames == [t for t in range(51) if 320 * t - 40 <= place < 320 * t + 360]


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_delay_of_whole_frames_delays_the_features(kind: str, tmp_path: Path) -> None:
    teacher = Teacher(str(save_teacher(kind, tmp_path)), 0)
    sound = noise(16_000)
    here = teacher([sound])[0]
    for frames in (1, 2, 7):
        delayed = np.concatenate([noise(320 * frames, seed=1), sound])
        there = teacher([delayed])[0][frames:]
        torch.testing.assert_close(there[8:], here[8:], atol=1e-5, rtol=1e-4)


def batches_from(folder: Path, clips: list[np.ndarray], teacher: Teacher) -> CropBatches:
    """Clips to disk, features to a cache, both to crops."""
    folder.mkdir()
    manifest = []
    for i, clip in enumerate(clips):
        soundfile.write(folder / f"{i}.wav", clip, 16_000, subtype="PCM_16")
        manifest.append(Utterance(str(i), folder / f"{i}.wav", len(clip) / 16_000))
    extract(teacher, manifest, folder / "cache")
    data = Data(train="", dev="", crop_seconds=CROP / 50, batch_size=8)
    recipe = Recipe("tiny", data, quantizer=Quantizer(dropout=0.0))
    return CropBatches(manifest, recipe, targets=FeatureCache(folder / "cache"))


def origin(waveform: np.ndarray, clips: list[np.ndarray]) -> tuple[int, int]:
    """The clip that a crop comes from, and the sample at which it begins."""
    places = [
        (i, int(begin))
        for i, clip in enumerate(clips)
        for begin in np.flatnonzero(np.isclose(clip[: len(clip) - len(waveform) + 1], waveform[0], atol=1e-4))
        if np.allclose(clip[begin : begin + len(waveform)], waveform, atol=1e-4)
    ]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("kind", [*FAMILIES, "whisper base"])
def test_a_crop_s_features_change_where_its_audio_does(kind: str, tmp_path: Path) -> None:
    """A burst in each clip, half a frame later from clip to clip: from file to batch it stays at its frame."""
    name = whisper_base() if kind == "whisper base" else save_teacher(kind, tmp_path / "teacher")
    teacher = Teacher(str(name), 0)
    burst = 0.4 * np.hanning(161) * np.sin(np.pi / 8 * np.arange(161))
    quiet = [0.03 * noise(length, seed=i) for i, length in enumerate(LENGTHS)]
    loud = [clip.copy() for clip in quiet]
    for i, clip in enumerate(loud):
        clip[8000 + 160 * i - 80 : 8000 + 160 * i + 81] += burst.astype(np.float32)
    without = batches_from(tmp_path / "quiet", quiet, teacher)
    with_burst = batches_from(tmp_path / "loud", loud, teacher)
    seen = set()
    for step in range(4):
        before, after = without[step], with_burst[step]
        change = (after.targets - before.targets).double()
        change -= change.median(1, keepdim=True).values  # the means that were taken off differ
        energy = change.square().sum(-1)
        for waveform, frames in zip(after.waveform.numpy(), energy, strict=True):
            clip, begin = origin(waveform, loud)
            at = 8000 + 160 * clip - begin
            centre = (at - 159.5) / 320  # in frames
            assert abs(int(frames.argmax()) - centre) < 0.51
            if kind == "whisper base":  # random weights may lean to one side
                near = torch.arange(int(centre) - 3, int(centre) + 5)
                assert abs(float((near * frames[near]).sum() / frames[near].sum()) - centre) < 0.1
            seen.add(at % 320)
    assert seen == {0, 160}, "bursts in the middle of frames and between them"


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_crop_s_features_are_its_own_audio_s(kind: str, tmp_path: Path) -> None:
    """What a teacher of narrow sight says of the crop alone is what the batch has; crops that touch the end too."""
    teacher = Teacher(str(save_teacher(kind, tmp_path / "teacher")), 0)
    clips = [noise(length, seed=i) for i, length in enumerate(LENGTHS)]
    batches = batches_from(tmp_path / "clips", clips, teacher)
    mean = torch.from_numpy(batches.targets.mean)
    last = set()
    for step in range(4):
        batch = batches[step]
        alone = teacher(list(batch.waveform.numpy()))
        for waveform, features, own in zip(batch.waveform, batch.targets, alone, strict=True):
            found = features + mean
            torch.testing.assert_close(found[8:-8], own[8:-8], atol=5e-3, rtol=0)
            assert (found[8:-8] - own[9:-7]).abs().amax(1).min() > 0.02, "a frame beside it is another"
            clip, begin = origin(waveform.numpy(), clips)
            whole = teacher([np.float32(soundfile.read(tmp_path / "clips" / f"{clip}.wav")[0])])[0]
            torch.testing.assert_close(found, whole[begin // 320 :][:CROP], atol=5e-3, rtol=0)
            if begin + CROP * 320 + 320 > len(clips[clip]):
                last.add(clip)
    assert len(last) >= 5, "crops that end with the last whole frame"


@pytest.mark.parametrize("length", [48_001, 48_040, 48_079])
def test_three_seconds_and_a_little(length: int, tmp_path: Path) -> None:
    """151 frames, of which a crop of 150 gets the first 150, none of them empty."""
    teacher = Teacher(str(save_teacher("hubert", tmp_path / "teacher")), 0)
    cache = batches_from(tmp_path / "clip", [noise(length)], teacher).targets
    assert cache.places["0"] == [0, 0, 151]
    assert cache("0", 0, 150).any(1).all()
    assert cache("0", 1, 151).any(1).tolist() == [True] * 150 + [False]
