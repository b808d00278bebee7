"""Batches: cut on a device and on the CPU, their phones and speakers, and the frequencies of languages."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.units import UnitCache
from vocable.training.data import Batch, CropBatches, _sampling_weights
from vocable.training.recipe import Data, Recipe

RATE, HOP = 16_000, 320


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Six clips of noise, one of them too short for a whole crop; two have no speaker."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    utterances = []
    for i, seconds in enumerate((0.6, 1.0, 0.8, 0.3, 1.5, 0.7)):
        path = folder / f"{i}.flac"
        soundfile.write(path, 0.1 * rng.normal(size=int(seconds * RATE)), RATE)
        speaker = None if i in (1, 4) else f"s{i % 3}"
        utterances.append(Utterance(str(i), path, seconds, speaker, language="de" if i % 2 else "en"))
    return utterances


def write_cache(folder: Path, utterances: list[Utterance], kind: str, short: int = 0) -> Path:
    """A folder of two shards, in an order other than the manifest's, each utterance `short` frames too short."""
    folder.mkdir()
    rng, places = np.random.default_rng(1), {}
    for shard, part in enumerate((utterances[::-1][:2], utterances[::-1][2:])):
        lengths = [int(u.duration * RATE / HOP) - short for u in part]
        shape = (sum(lengths), 5) if kind == "features" else (sum(lengths),)
        values = rng.normal(size=shape).astype(np.float16) if kind == "features" else rng.integers(0, 9, shape)
        np.save(folder / f"{shard:05d}.npy", values if kind == "features" else values.astype(np.int16))
        for u, start, length in zip(part, np.cumsum([0, *lengths]), lengths, strict=False):
            places[u.id] = [shard, int(start), length]
    index: dict[str, Any] = {"teacher": "t", "layer": 1, "utterances": places}
    index |= {"dimension": 5, "mean": [0.5, -1.0, 0.0, 2.0, 0.1]} if kind == "features" else {"num_units": 9}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def make_batches(utterances: list[Utterance], targets: Any = None, phones: Any = None, **changes: Any) -> CropBatches:
    """Crops of 25 frames. changes: of the recipe's data."""
    data = Data(**{"train": "", "dev": "", "crop_seconds": 0.5, "batch_size": 4, **changes})
    return CropBatches(utterances, Recipe("tiny", data), targets=targets, phones=phones)


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in vars(a)]
    return all(
        (x is None and y is None) or (x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)) for x, y in pairs
    )


@pytest.mark.parametrize("targets", ["features", "units", None])
@pytest.mark.parametrize("short", [0, 20], ids=["whole", "short"])
def test_batches_cut_on_a_device_are_those_of_the_cpu(
    targets: str | None, short: int, corpus: list[Utterance], tmp_path: Path
) -> None:
    """`short`: caches end before their utterances do, as they may by a frame; what lies behind is 0, or no unit."""
    caches: dict[str, Any] = {"phones": UnitCache(write_cache(tmp_path / "phones", corpus[1:4], "units", short // 2))}
    if targets:
        kinds: dict[str, Any] = {"features": FeatureCache, "units": UnitCache}
        short = min(short, 14)
        caches["targets"] = kinds[targets](write_cache(tmp_path / "targets", corpus, targets, short))
    plain, kept = (make_batches(corpus, **caches) for _ in range(2))
    kept.keep_on(torch.device("cpu"))
    assert kept.clips == [], "they are kept once"
    ends = 0
    for step in range(12):
        assert same(plain[step], kept[step])
        assert same(plain.micro_batch(step, 1, 2), kept.micro_batch(step, 1, 2))
        if targets == "units":
            ends += int((plain[step].targets == NO_UNIT).sum())
    assert (ends > 0) == (targets == "units" and short > 0)


def test_a_corpus_that_is_not_in_memory_cannot_be_kept(corpus: list[Utterance]) -> None:
    with pytest.raises(ValueError, match=r"it needs data\.preload"):
        make_batches(corpus, preload=False).keep_on(torch.device("cpu"))


def test_phones_and_speakers_are_those_of_the_crops(corpus: list[Utterance], tmp_path: Path) -> None:
    labelled = corpus[1:4]
    phones = UnitCache(write_cache(tmp_path / "phones", labelled, "units"))
    batches = make_batches(corpus, phones=phones, batch_size=16)
    assert batches.speakers == ["s0", "s2"], "those that are known"
    seen: Counter[int] = Counter()
    for step in range(10):
        batch = batches[step]
        assert batch.phones is not None and batch.targets is None
        for waveform, labels, speaker in zip(batch.waveform, batch.phones, batch.speakers.tolist(), strict=True):
            [(index, start)] = [
                (i, at // HOP)
                for i, clip in enumerate(batches.clips)
                for at in range(0, len(clip) - len(waveform) + 1, HOP)
                if np.array_equal(clip[at : at + len(waveform)] / np.float32(32768), waveform.numpy())
            ]
            utterance = corpus[index]
            seen[index] += 1
            assert speaker == (batches.speakers.index(utterance.speaker) if utterance.speaker else NO_UNIT)
            if utterance in labelled:
                assert np.array_equal(labels.numpy(), phones(utterance.id, start, len(labels)))
            else:
                assert (labels == NO_UNIT).all()
    assert set(seen) >= {0, 1, 2, 4, 5}
    assert make_batches(corpus)[0].phones is None


def test_languages_are_drawn_as_their_temperature_says(corpus: list[Utterance]) -> None:
    """Nine hours of one language and one of another, in clips of unlike length."""
    rng = np.random.default_rng(0)
    many = [Utterance(f"a{i}", Path("a"), float(d), language="en") for i, d in enumerate(rng.uniform(1, 9, 180))]
    few = [Utterance(f"b{i}", Path("b"), float(d), language="de") for i, d in enumerate(rng.uniform(1, 9, 20))]
    total, hours = sum(u.duration for u in many + few), sum(u.duration for u in few)
    fraction = hours / total
    for temperature, wanted in (
        (1.0, fraction),
        (0.0, 0.5),
        (0.5, fraction**0.5 / (fraction**0.5 + (1 - fraction) ** 0.5)),
    ):
        chances = _sampling_weights(many + few, temperature)
        assert chances[180:].sum() / chances.sum() == pytest.approx(wanted)
        within = chances[180:] / chances[180:].sum()
        assert np.allclose(within, [u.duration / hours for u in few]), "within a language, every hour alike"
        options: dict[str, Any] = {"preload": False, "language_temperature": temperature}
        batches = make_batches(many + few, **options)
        drawn = sum(
            chance * bucket.probabilities[bucket.utterances >= 180].sum()
            for bucket, chance in zip(batches.buckets, batches._bucket_probabilities, strict=True)
        )
        assert drawn == pytest.approx(wanted)
    unknown = [Utterance(str(i), Path("a"), 1.0) for i in range(3)]
    assert np.allclose(_sampling_weights(unknown, 0.0), 1.0), "those of no known language are one"


def test_a_rare_language_comes_half_of_the_time(corpus: list[Utterance]) -> None:
    batches = make_batches([*corpus[::2], corpus[1]], batch_size=50, language_temperature=0.0)
    languages: Counter[bool] = Counter()
    clips = {clip.tobytes() for clip in batches.clips[3:]}
    for step in range(6):
        for waveform in batches[step].waveform:
            samples = (waveform * 32768).short().numpy().tobytes()
            languages[any(samples in clip for clip in clips)] += 1
    assert 0.35 < languages[True] / languages.total() < 0.65
