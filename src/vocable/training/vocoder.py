"""The trainer of the vocoder for units: recordings and their units in, `semantic.vocoder.Vocoder` out.

UNITS/vocoder/     the run's folder, unless another is named; the trained vocoder is written to UNITS itself
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocable.corpus.manifest import read_manifests
from vocable.semantic.units import UnitCache
from vocable.semantic.vocoder import Vocoder
from vocable.training.data import Batch, CropBatches
from vocable.training.inputs import input_digests
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.losses import SpectralLoss
from vocable.training.optimizer import Updater
from vocable.training.recipe import Data, Distillation, Recipe
from vocable.training.torch_globals import seeded


def vocoder_recipe(units: str | os.PathLike[str], *, manifest: str | os.PathLike[str], seed: int = 0) -> Recipe:
    """Return the recipe of a vocoder. units: a folder of `vocable semantic units`. manifest: of their recordings."""
    return Recipe(
        name="vocoder",
        data=Data(train=str(manifest), dev=str(manifest), crop_seconds=2.0, batch_size=6),
        distillation=Distillation(weight=1.0, loss="units", units=str(units)),
        max_steps=1_000_000,  # more than the time allows: max_time ends the run
        seed=seed,
    )


class VocoderTrainer(Trainer):
    """A training run of a vocoder in a folder.

    recipe: its data, distillation.units, losses.mel, losses.spectrum, optimizer and the fields that every Trainer has
    are used. max_time, on_log: see Trainer. on_load: called with seconds of audio as recordings are preloaded.

    Raises ValueError if no recording has units, and for a recording that cannot be read.
    """

    recipe: Recipe

    def __init__(
        self,
        recipe: Recipe,
        folder: str | os.PathLike[str],
        *,
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
        on_load: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        super().__init__(recipe, folder, max_time=max_time, on_log=on_log)
        units = UnitCache(recipe.distillation.units)
        utterances = [u for u in read_manifests(recipe.data.train) if u.id in units]
        if not utterances:
            raise ValueError(f"{recipe.data.train}: none of its recordings has units in {recipe.distillation.units}")
        self.inputs = input_digests(recipe, utterances)
        self.data: CropBatches = CropBatches(utterances, recipe, targets=units, progress=on_load)
        with seeded(recipe.seed):
            self.vocoder = Vocoder(units.num_units, recipe.codec).to(self.device)
        self.spectral_loss = SpectralLoss(recipe.codec.sample_rate, recipe.losses.resolutions)
        float16 = recipe.precision == "float16"
        self.updater = Updater(self.vocoder.parameters(), recipe.optimizer, float16=float16)

    def components(self) -> dict[str, Any]:
        """See Trainer."""
        return {"vocoder": self.vocoder, "optimizer": self.updater}

    def train_step(self, micro_batches: list[Batch]) -> dict[str, float]:
        """See Trainer."""
        weights = self.recipe.losses
        records = []
        for batch in micro_batches:
            assert batch.targets is not None
            original, units = batch.waveform.to(self.device), batch.targets.to(self.device)
            with self.autocast():
                decoded = self.vocoder(units.clamp_min(0))
            losses = self.spectral_loss(decoded, original)
            losses["total"] = weights.mel * losses["mel"] + weights.spectrum * losses["spectrum"]
            self.updater.backward(losses["total"] / len(micro_batches))
            records.append({name: float(loss.detach()) for name, loss in losses.items()})
        norm = self.updater.update(self.learning_rate_factor())
        if norm is None:
            return self.skip()
        means = {name: sum(record[name] for record in records) / len(records) for name in records[0]}
        return {**means, "gradient": norm}

    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Return nothing: a vocoder is compared by `vocable eval`."""
        return {}

    def publish(self) -> None:
        """Write the vocoder to the folder of the units."""
        self.vocoder.save(
            Path(self.recipe.distillation.units), steps=self.step, seconds=round(self.elapsed), seed=self.recipe.seed
        )

    def about(self) -> dict[str, Any]:
        """Return the number of recordings that were too short to train on."""
        return {"left_out": self.data.left_out}
