"""Suite disentanglement: linear maps from vectors to labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import SPEECH, make_tiny
from vocable import audio
from vocable.evaluation import disentanglement, linear


def separable_clips(clips: int = 16) -> tuple[list[disentanglement.LabelledClip], list[torch.Tensor]]:
    """Return clips of four speakers, and vectors whose channels are speaker, phone, pitch and energy."""
    rng = np.random.default_rng(0)
    made, vectors = [], []
    for i in range(clips):
        phones = rng.integers(3, size=40)
        pitch, energy = rng.normal(size=(2, 40))
        made.append(
            disentanglement.LabelledClip(
                str(i), f"s{i % 4}", np.arange(40), phones, pitch, energy, np.zeros(1, np.float32)
            )
        )
        vectors.append(torch.from_numpy(np.column_stack([np.eye(4)[[i % 4] * 40], np.eye(3)[phones], pitch, energy])))
    return made, vectors


def test_linear_maps_read_labels_from_vectors_and_not_from_noise() -> None:
    clips, vectors = separable_clips()
    found = disentanglement.read(vectors, clips, 3)
    assert all(found[reading]["value"] > 97 for reading in disentanglement.READINGS)
    noise = [torch.randn(v.shape, generator=torch.Generator().manual_seed(i)).double() for i, v in enumerate(vectors)]
    nothing = disentanglement.read(noise, clips, 3)
    level = disentanglement.chance(clips)
    assert level["speaker"] == 25 and 33 < level["phone"] < 40
    assert abs(nothing["phone"]["value"] - level["phone"]) < 12
    assert nothing["speaker"]["value"] < 70 and nothing["pitch"]["value"] < 5 and nothing["energy"]["value"] < 5


@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_codecs_of_any_frame_rate_have_a_vector_for_each_label(rate: int) -> None:
    codec = make_tiny(sample_rate=rate)
    waveform = audio.read(SPEECH, 16_000)[0][:9_000]
    labels = np.zeros(-(-len(waveform) // 320))
    clip = disentanglement.LabelledClip("a", "s", np.zeros(0, int), np.zeros(0, int), labels, labels, waveform)
    found = dict(disentanglement.embed(codec, [clip]))
    assert list(found) == list(disentanglement.LAYER_CHOICES)
    codes = codec.encode(waveform, sample_rate=16_000).codes
    vectors = codec.embed(codes)[0].T.double()
    frames = [min(int((i + 0.5) / 50 * codec.frame_rate), len(vectors) - 1) for i in range(len(labels))]
    assert torch.equal(found[":8"][0], vectors[frames])


def test_every_speaker_is_in_every_part() -> None:
    clips, _ = separable_clips()
    fold = linear.fold_by_speaker([clip.speaker for clip in clips], disentanglement.FOLDS)
    for k in range(disentanglement.FOLDS):
        assert {clip.speaker for clip, part in zip(clips, fold, strict=True) if part == k} == {"s0", "s1", "s2", "s3"}
