"""The language models' trainer: a corpus in, models out; resuming; what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from conftest import LETTERS, make_tiny, run_command
from vocable.codec.model import SpeechTokenizer
from vocable.corpus.engines import Local
from vocable.corpus.manifest import Utterance, read_manifest, write_manifest
from vocable.corpus.plan import Plan
from vocable.corpus.tokenize import tokenize
from vocable.lm.aligner import Aligner, AlignerConfig
from vocable.lm.ar import AR, ARConfig
from vocable.lm.batches import without_marks
from vocable.lm.corpus import Clip
from vocable.lm.model import LanguageModels, build_models, load_models, save_models
from vocable.lm.recipe import AlignerRecipe, LMRecipe, load_recipe
from vocable.lm.symbols import SymbolTable
from vocable.lm.timing import PAUSE, Timing
from vocable.lm.train import LMTrainer
from vocable.lm.transformer import TransformerConfig
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.units import UnitCache
from vocable.training.recipe import build
from vocable.training.stop import Interrupted

WORDS = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips of noise with texts, of four speakers, tokenized by a tiny codec, which lies beside them."""
    folder = tmp_path_factory.mktemp("lm")
    codec = make_tiny(num_quantizers=4)
    codec.quantizer.codebooks.copy_(torch.randn(4, 32, 8, generator=torch.Generator().manual_seed(0)))
    codec.save_pretrained(folder / "codec")
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(16):
        seconds = float(rng.uniform(1.5, 3.0))
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.normal(size=int(16_000 * seconds)), 16_000)
        text = " ".join(rng.choice(WORDS, 3)) if i != 5 else None
        utterances.append(Utterance(str(i), folder / f"{i}.wav", seconds, f"s{i % 4}", text, language="de"))
    write_manifest(folder / "train.jsonl", utterances)
    codec = SpeechTokenizer.from_pretrained(folder / "codec")
    plan = Plan(codec=str(folder / "codec"), token_id=codec.token_id, start=0, stop=4)
    tokenize(utterances, out=folder / "tokens", plan=plan, engine=Local(1))
    return folder


def recipe(corpus: Path, cache: Path, **changes: Any) -> LMRecipe:
    data = {"tokens": str(corpus / "tokens"), "train": str(corpus / "train.jsonl"), "cache": str(cache)}
    data |= {"dev_tokens": data["tokens"], "dev": data["train"], "front_end": "characters", "batch_frames": 400}
    small = {"dim": 16, "layers": 1, "heads": 2, "hidden": 16, "dropout": 0.1}
    values = {"name": "lm", "data": data, "codec": str(corpus / "codec"), "ar": small, "nar": small}
    values |= {"aligner": {"steps": 20, "batch_frames": 300}, "precision": "float32"}
    values |= {"max_steps": 6, "save_every": 2, "evaluate_every": 3}
    return build(LMRecipe, {**values, **changes}, "recipe")


def test_a_run_learns_and_its_models_load(corpus: Path, tmp_path: Path) -> None:
    stages: set[str] = set()
    plan = recipe(corpus, tmp_path / "cache", max_steps=30, optimizer={"learning_rate": 0.01})
    trainer = LMTrainer(plan, tmp_path / "run", on_load=lambda stage, share: stages.add(stage))
    assert stages == {"reading texts", "training the aligner", "timing symbols"}
    assert trainer.corpus.left_out == {"5": "no text"} and len(trainer.corpus.clips) == 15
    assert trainer.models.language == "de", "which its texts are in"
    for clip in trainer.corpus.clips:
        assert clip.timing and sum(clip.timing.frames) == clip.codes.shape[1]
        assert [s for s in clip.timing.symbols if s != PAUSE] == clip.symbols
    records: list[dict[str, Any]] = []
    trainer.on_log = records.append
    summary = trainer.run()
    dev = [record for record in records if "dev/ar" in record]
    assert dev[-1]["dev/ar"] < dev[0]["dev/ar"] and dev[-1]["dev/nar"] < dev[0]["dev/nar"]
    codec = SpeechTokenizer.from_pretrained(corpus / "codec")
    models = load_models(tmp_path / "run" / "model", codec)
    assert models.ar and models.nar and summary["token_id"] == codec.token_id
    assert list(models.networks()) == ["ar", "nar", "aligner"]
    for name, model in models.networks().items():
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, trainer.models.networks()[name].state_dict()[key])
    with pytest.raises(ValueError, match=r"models of tokens-\w+, but those of this"):
        load_models(tmp_path / "run" / "model", make_tiny(3, num_quantizers=4))


def test_the_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml")
    plan = dataclasses.asdict(recipe(corpus, tmp_path / "cache", max_steps=2, nar={"train": False}))
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(plan))))
    assert run_command("train", "lm", tmp_path / "lm.yaml", "-o", tmp_path / "run") == 0
    token_id = SpeechTokenizer.from_pretrained(corpus / "codec").token_id
    printed = capsys.readouterr().err
    assert f" on {token_id}: 2 steps" in printed and "1 clips were left out" in printed
    assert (tmp_path / "run" / "model" / "ar.safetensors").is_file()


def test_resumed_equals_uninterrupted(corpus: Path, tmp_path: Path) -> None:
    plan = recipe(corpus, tmp_path / "cache", optimizer={"ema_decay": 0.5})
    whole = LMTrainer(plan, tmp_path / "whole")
    whole.run()
    half = LMTrainer(plan, tmp_path / "half")
    step = half.train_step

    def stop_after_three(parts: list[Any]) -> dict[str, float]:
        if half.step == 3:
            raise Interrupted(2)
        return step(parts)

    half.train_step = stop_after_three  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        half.run()
    again = LMTrainer(plan, tmp_path / "half")
    again.resume()
    assert again.step == 2, "the last that was saved"
    again.run()
    published = load_models(tmp_path / "whole" / "model", SpeechTokenizer.from_pretrained(corpus / "codec")).networks()
    for name, model in whole.trained.items():
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.trained[name].state_dict()[key]), key
        for key, tensor in whole.averages[name].module.state_dict().items():
            assert torch.equal(tensor, again.averages[name].module.state_dict()[key]), key
            assert torch.equal(tensor, published[name].state_dict()[key]), "the average is published"
        weights = zip(whole.trained[name].parameters(), whole.averages[name].module.parameters(), strict=True)
        assert not all(torch.equal(last, average) for last, average in weights)


@pytest.mark.parametrize("part", ["ar", "nar"])
def test_one_of_the_two_alone(part: str, corpus: Path, tmp_path: Path) -> None:
    others = {
        "ar": {"nar": {"train": False}, "ar": {"all_layers": True}},
        "nar": {"ar": {"train": False, "timed": False}},
    }
    trainer = LMTrainer(recipe(corpus, tmp_path / "cache", **others[part]), tmp_path / "run")
    assert list(trainer.trained) == [part]
    assert trainer.train_step([trainer.data.micro_batch(0, 0, 1)])[part] > 0
    assert part == "ar" or not (tmp_path / "cache" / "timings.json").exists(), "nothing was to be timed"


def test_phones_of_a_corpus_by_command(corpus: Path, tmp_path: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(corpus / "codec")
    torch.manual_seed(0)
    table = SymbolTable(LETTERS)
    aligner = Aligner(AlignerConfig(codec.dimension, len(table), 16)).eval()
    sizes = TransformerConfig(dim=16, layers=1, heads=2, hidden=16)
    ar = AR(ARConfig(codec.codebook_sizes[0], len(table), sizes))
    models, out = tmp_path / "models", tmp_path / "phones"
    save_models(LanguageModels(codec.token_id, "characters", "de", table, ar, None, aligner), models)
    options = ["--tokens", corpus / "tokens", "-o", out, "--models", models, "--codec", corpus / "codec"]
    assert run_command("semantic", "phones", corpus / "train.jsonl", *options) == 0
    phones = UnitCache(out)
    assert phones.num_units == len(table) + 1, "the symbols and a pause"
    assert phones.teacher.startswith("aligner of ") and "5" not in phones, "the clip without a text"
    assert len(phones.places) == 15
    for utterance in read_manifest(corpus / "train.jsonl"):
        if utterance.id not in phones:
            continue
        frames = codec.num_frames(int(utterance.duration * codec.sample_rate))
        labels = phones(utterance.id, 0, frames + 2)
        assert (labels[frames:] == NO_UNIT).all() and labels[:frames].min() >= 0
        spoken = [table.symbols[n] for n in labels[:frames].tolist() if n < len(table)]
        text = utterance.text.replace(" ", "")
        assert [s for s, _ in itertools.groupby(spoken)] == [s for s, _ in itertools.groupby(text)]


def test_what_it_refuses(corpus: Path, tmp_path: Path) -> None:
    make_tiny(1, num_quantizers=4).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="tokens of tokens-"):
        LMTrainer(recipe(corpus, tmp_path / "cache", codec=str(tmp_path / "other")), tmp_path / "run")
    for changes, why in (
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"aligner": {"steps": 10}}, "aligner.steps must be at least 20"),
        ({"ar": {"dropout": 1.0}}, "ar.dropout must be 0 to less than 1"),
        ({"nar": {"no_symbols": 2.0}}, "nar.no_symbols must be 0 to 1"),
        ({"name": "../lm"}, "name must be a name of letters"),
    ):
        with pytest.raises(ValueError, match=why):
            recipe(corpus, tmp_path, **changes)
    untold = [dataclasses.replace(u, text=None) for u in read_manifest(corpus / "train.jsonl")]
    write_manifest(tmp_path / "untold.jsonl", untold)
    plan = recipe(corpus, tmp_path / "cache")
    plan = dataclasses.replace(plan, data=dataclasses.replace(plan.data, train=str(tmp_path / "untold.jsonl")))
    with pytest.raises(ValueError, match=r"no clip has tokens and a text to learn from \(no text\)"):
        LMTrainer(plan, tmp_path / "run")
    with pytest.raises(ValueError, match="nothing to train"):
        recipe(corpus, tmp_path, ar={"train": False}, nar={"train": False})


def test_the_shipped_recipes_load() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    recipes = [*folder.glob("uslm*.yaml"), *folder.glob("uslm*/**/*.yaml")]
    assert len(recipes) > 10 and all(load_recipe(path).name == path.stem for path in recipes)


@pytest.mark.parametrize(("name", "ar", "nar"), [("uslm-small", 5e6, 8e6), ("uslm-paper", 200e6, 200e6)])
def test_the_recipes(name: str, ar: float, nar: float, fast: SpeechTokenizer) -> None:
    """Their sizes, in parameters, with a table of 112 symbols."""
    plan = load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")
    with torch.device("meta"):
        models = build_models(plan, fast, SymbolTable([str(i) for i in range(112)]), "en")
    sizes = {part: sum(p.numel() for p in model.parameters()) for part, model in models.networks().items()}
    assert sizes["ar"] == pytest.approx(ar, rel=0.15) and sizes["nar"] == pytest.approx(nar, rel=0.15)


def test_a_clip_without_its_marks() -> None:
    clip = Clip("a", "s", [3, 7, 4, 7], np.zeros((4, 9), np.int16), Timing([3, 7, PAUSE, 4, 7], [2, 1, 2, 3, 1]))
    bare = without_marks(clip, {7})
    assert bare.symbols == [3, 4] and bare.timing == Timing([3, PAUSE, 4, PAUSE], [2, 3, 3, 1])


def test_a_text_that_changed_is_timed_anew(corpus: Path, tmp_path: Path) -> None:
    plan = recipe(corpus, tmp_path / "cache")
    before = LMTrainer(plan, tmp_path / "a").corpus.clips[0]
    first, *rest = read_manifest(corpus / "train.jsonl")
    write_manifest(tmp_path / "train.jsonl", [dataclasses.replace(first, text=f"{first.text} one"), *rest])
    data = dataclasses.replace(plan.data, train=str(tmp_path / "train.jsonl"))
    after = LMTrainer(dataclasses.replace(plan, data=data), tmp_path / "b").corpus.clips[0]
    assert after.timing and [s for s in after.timing.symbols if s != PAUSE] == after.symbols != before.symbols


def test_an_aligner_is_that_of_its_clips_and_recipe(corpus: Path, tmp_path: Path) -> None:
    plan = recipe(corpus, tmp_path / "cache", max_steps=1)
    fewer = dataclasses.replace(plan.data, train=str(tmp_path / "train.jsonl"))
    write_manifest(tmp_path / "train.jsonl", read_manifest(corpus / "train.jsonl")[:9])
    plans = plan, dataclasses.replace(plan, seed=1), plan, dataclasses.replace(plan, aligner=AlignerRecipe(steps=21))
    aligners = [LMTrainer(p, tmp_path / str(i)).models.aligner for i, p in enumerate(plans)]
    aligners.append(LMTrainer(dataclasses.replace(plan, data=fewer), tmp_path / "fewer").models.aligner)
    first, other_seed, again, more_steps, fewer_clips = (aligner.first.weight for aligner in aligners if aligner)
    assert torch.equal(first, again) and torch.equal(first, other_seed)
    assert not torch.equal(first, more_steps) and not torch.equal(first, fewer_clips)


def test_a_model_that_diverges_beside_one_that_does_not(corpus: Path, tmp_path: Path) -> None:
    trainer = LMTrainer(recipe(corpus, tmp_path / "cache"), tmp_path / "run")
    with torch.no_grad():
        trainer.trained["ar"].head.weight[0, 0] = torch.nan
    for step in range(1, 10):
        assert trainer.train_step([trainer.data.micro_batch(step, 0, 1)]) == {"skipped": step}
    with pytest.raises(ValueError, match="10 times in a row"):
        trainer.train_step([trainer.data.micro_batch(10, 0, 1)])


def test_going_on_from_models(corpus: Path, tmp_path: Path) -> None:
    plan = recipe(corpus, tmp_path / "cache", max_steps=2)
    first = LMTrainer(plan, tmp_path / "first")
    first.run()
    again = LMTrainer(dataclasses.replace(plan, init=str(tmp_path / "first" / "model")), tmp_path / "again")
    for name, model in first.trained.items():
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.trained[name].state_dict()[key])
    small = dataclasses.replace(plan.ar, look_ahead=False, dropout=0.0)
    first_models = str(tmp_path / "first" / "model")
    alone = dataclasses.replace(plan, init=first_models, ar=small, nar=dataclasses.replace(plan.nar, train=False))
    LMTrainer(alone, tmp_path / "alone").run()
    kept, begun = (
        load_models(tmp_path / name / "model", SpeechTokenizer.from_pretrained(corpus / "codec"))
        for name in ("alone", "first")
    )
    assert kept.nar and begun.nar and torch.equal(kept.nar.expect, begun.nar.expect)
    assert kept.ar and begun.ar and not torch.equal(kept.ar.head.weight, begun.ar.head.weight)
    wider = recipe(corpus, tmp_path / "cache", init=first_models, ar={"dim": 32})
    with pytest.raises(ValueError, match="no ar of this recipe's sizes"):
        LMTrainer(wider, tmp_path / "wider")
    config = tmp_path / "first" / "model" / "config.json"
    config.write_text(config.read_text().replace('"front_end": "characters"', '"front_end": "phonemes"'))
    with pytest.raises(ValueError, match="--set data"):
        LMTrainer(wider, tmp_path / "other")
