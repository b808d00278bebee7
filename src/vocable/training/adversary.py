"""Adversarial training of the codec: discriminators, their optimizer, and the losses of both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vocable.codec import checkpoint
from vocable.files import atomic_path
from vocable.training.discriminators import paper_discriminators, slim_discriminators, stft_discriminators
from vocable.training.optimizer import Updater
from vocable.training.recipe import AdversaryRecipe, Optimizer

DISCRIMINATORS = "discriminators.safetensors"
KINDS = {"paper": paper_discriminators, "slim": slim_discriminators, "stft": stft_discriminators}

#: A discriminator's scores [B, N] and the activations of its layers.
Judgement: TypeAlias = tuple[Tensor, list[Tensor]]


class Adversary:
    """Discriminators with their optimizer, and the adversarial and feature matching losses for the codec.

    A training step calls `real_pass` on the recordings, once for both sides; then `losses`, whose gradients go to the
    codec only; then `discriminator_step` and `updater.update`, which train the discriminators. All of them use only the
    first clips of a batch, the fraction `recipe.shown` of it.
    """

    def __init__(self, recipe: AdversaryRecipe, device: torch.device, float16: bool = False) -> None:
        self.recipe = recipe
        self.discriminators = KINDS[recipe.discriminators]().to(device)
        optimizer = Optimizer(
            learning_rate=recipe.learning_rate, betas=recipe.betas, weight_decay=0.0, clip_norm=recipe.clip_norm
        )
        self.updater = Updater(self.discriminators.parameters(), optimizer, float16=float16, section="adversary")

    def real_pass(self, original: Tensor) -> list[Judgement]:
        """Run the discriminators on recordings [B, L], with gradients to the discriminators."""
        return [discriminator(self._subset(original)) for discriminator in self.discriminators]

    def losses(self, decoded: Tensor, real: Sequence[Judgement]) -> dict[str, Tensor]:
        """Return the codec's losses, scalars: "adversarial", and "features" for feature matching.

        decoded: [B, L]. real: from `real_pass` on the recordings.
        """
        decoded = self._subset(decoded)
        with _frozen(self.discriminators):
            adversarial, matching = decoded.new_zeros(()), decoded.new_zeros(())
            for discriminator, (_, real_features) in zip(self.discriminators, real, strict=True):
                scores, features = discriminator(decoded)
                adversarial = adversarial + self._codec_loss(scores)
                matching = matching + self._feature_distance(features, real_features)
        count = len(self.discriminators)
        return {"adversarial": adversarial / count, "features": matching / count}

    def discriminator_step(self, decoded: Tensor, real: Sequence[Judgement], fraction: float = 1.0) -> dict[str, float]:
        """Add the gradients of the discriminators' own loss; return that loss and the fraction of right judgements.

        `updater.update` takes the step. decoded: [B, L]. real: from `real_pass` on the recordings; its graph is freed.
        fraction: the fraction of the step's batch that these clips are.
        """
        decoded = self._subset(decoded).detach()
        loss, right = decoded.new_zeros(()), 0.0
        for discriminator, (real_scores, _) in zip(self.discriminators, real, strict=True):
            scores, _ = discriminator(decoded)
            loss = loss + self._discriminator_loss(real_scores, scores)
            middle = 0.5 if self.recipe.loss == "lsgan" else 0.0
            right += float(((real_scores > middle).float().mean() + (scores < middle).float().mean()) / 2)
        count = len(self.discriminators)
        self.updater.backward(loss * fraction / count)
        return {"discriminators": float(loss.detach()) / count, "judged_right": right / count}

    def save(self, folder: Path) -> None:
        """Write FOLDER/discriminators.safetensors, from which a fine-tuning of the codec in FOLDER begins."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.discriminators.state_dict().items()}
        with atomic_path(folder / DISCRIMINATORS) as temporary:
            safetensors.torch.save_file(tensors, temporary, {"kind": self.recipe.discriminators})

    def load(self, codec: str) -> None:
        """Load the discriminators.safetensors beside a codec's weights, if there is one and it is of the recipe's kind.

        Otherwise the discriminators stay random. Raises ValueError for a damaged file.
        """
        path = checkpoint.locate(codec, DISCRIMINATORS) / DISCRIMINATORS
        if not path.is_file():
            return
        try:
            with safetensors.safe_open(path, "pt") as file:
                kind = (file.metadata() or {}).get("kind")
            if kind != self.recipe.discriminators:
                return
            self.discriminators.load_state_dict(safetensors.torch.load_file(path))
        except (RuntimeError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path}: damaged, or not of this version: delete it to begin with random ones") from error

    def _subset(self, waveform: Tensor) -> Tensor:
        """Return the clips of a batch [B, L] that the discriminators are given."""
        return waveform[: max(1, round(self.recipe.shown * len(waveform)))]

    def _codec_loss(self, fake: Tensor) -> Tensor:
        if self.recipe.loss == "lsgan":  # Mao et al. 2017: towards 1
            return (1 - fake).square().mean()
        return (1 - fake).relu().mean()  # hinge, as in EnCodec

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.recipe.loss == "lsgan":
            return (1 - real).square().mean() + fake.square().mean()
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def _feature_distance(self, fake: list[Tensor], real: list[Tensor]) -> Tensor:
        """Return the mean over layers of the L1 distance of activations, divided by the mean size of the real ones
        if the recipe has `normalize`."""
        total = fake[0].new_zeros(())
        for x, y in zip(fake, (t.detach() for t in real), strict=True):
            # Not F.l1_loss, for which autocast copies both to float32; nor mean, whose gradient loses the layout.
            distance = (x - y).abs().sum().float() / x.numel()
            size = y.abs().mean(dtype=torch.float32).clamp_min(1e-6)
            total = total + (distance / size if self.recipe.normalize else distance)
        return total / len(fake)


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within the block, gradients pass through a module and are not kept for its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
