"""The adversary of a codec: discriminators, their optimizer, and the losses of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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


class Adversary:
    """Learns to tell speech from what the codec makes of it, and says how the codec could fool it better.

    A step of training: `look` at the recordings, once for both sides; `losses` for the codec, with gradients to it
    alone; then `judge` and `updater`, which train the discriminators. Both sides see the first `recipe.shown` of a
    batch's clips.
    """

    def __init__(self, recipe: AdversaryRecipe, device: torch.device, float16: bool = False) -> None:
        self.recipe = recipe
        kinds = {"paper": paper_discriminators, "slim": slim_discriminators, "stft": stft_discriminators}
        make = kinds[recipe.discriminators]
        self.discriminators = make().to(device)
        optimizer = Optimizer(
            learning_rate=recipe.learning_rate, betas=recipe.betas, weight_decay=0.0, clip_norm=recipe.clip_norm
        )
        self.updater = Updater(self.discriminators.parameters(), optimizer, float16=float16, section="adversary")

    def look(self, original: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """What each discriminator says of recordings [B, L]: scores, with gradients to the discriminators, and the
        activations of its layers."""
        return [discriminator(self._shown(original)) for discriminator in self.discriminators]

    def losses(self, decoded: Tensor, real: Sequence[tuple[Tensor, list[Tensor]]]) -> dict[str, Tensor]:
        """The codec's losses, scalars: "adversarial", and "features", which matches the discriminators' activations.

        decoded: [B, L]. real: what `look` returned for the recordings.
        """
        decoded = self._shown(decoded)
        with _frozen(self.discriminators):
            adversarial, matching = decoded.new_zeros(()), decoded.new_zeros(())
            for discriminator, (_, theirs) in zip(self.discriminators, real, strict=True):
                score, ours = discriminator(decoded)
                adversarial = adversarial + self._codec_loss(score)
                matching = matching + self._match(ours, theirs)
        count = len(self.discriminators)
        return {"adversarial": adversarial / count, "features": matching / count}

    def judge(
        self, decoded: Tensor, real: Sequence[tuple[Tensor, list[Tensor]]], share: float = 1.0
    ) -> dict[str, float]:
        """Add the gradients of the discriminators' own loss on a part of a batch, for `updater` to act on; returns the
        loss, and how often they judge right.

        decoded: [B, L]. real: what `look` returned for the recordings; it serves once. share: what part of
        the batch this is.
        """
        decoded = self._shown(decoded).detach()
        loss, right = decoded.new_zeros(()), 0.0
        for discriminator, (theirs, _) in zip(self.discriminators, real, strict=True):
            ours, _ = discriminator(decoded)
            loss = loss + self._discriminator_loss(theirs, ours)
            middle = 0.5 if self.recipe.loss == "lsgan" else 0.0
            right += float(((theirs > middle).float().mean() + (ours < middle).float().mean()) / 2)
        count = len(self.discriminators)
        self.updater.backward(loss * share / count)
        return {"discriminators": float(loss.detach()) / count, "judged_right": right / count}

    def save(self, folder: Path) -> None:
        """Write FOLDER/discriminators.safetensors, for those who fine-tune the codec beside it."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.discriminators.state_dict().items()}
        with atomic_path(folder / DISCRIMINATORS) as temporary:
            safetensors.torch.save_file(tensors, temporary, {"kind": self.recipe.discriminators})

    def load(self, codec: str) -> None:
        """Go on from the discriminators.safetensors beside a codec's weights; random ones stay where there is none, or
        where they are of another kind.

        Raises ValueError for a file that is damaged.
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

    def _shown(self, waveform: Tensor) -> Tensor:
        return waveform[: max(1, round(self.recipe.shown * len(waveform)))]

    def _codec_loss(self, fake: Tensor) -> Tensor:
        if self.recipe.loss == "lsgan":  # Mao et al. 2017: towards 1
            return (1 - fake).square().mean()
        return (1 - fake).relu().mean()  # hinge, as EnCodec has it

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.recipe.loss == "lsgan":
            return (1 - real).square().mean() + fake.square().mean()
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def _match(self, fake: list[Tensor], real: list[Tensor]) -> Tensor:
        """Mean L1 of each layer's activations, over the size of the real ones where the recipe says so."""
        total = fake[0].new_zeros(())
        for ours, theirs in zip(fake, (t.detach() for t in real), strict=True):
            # Not F.l1_loss, for which autocast copies both to float32; nor mean, whose gradient loses their layout.
            distance = (ours - theirs).abs().sum().float() / ours.numel()
            size = theirs.abs().mean(dtype=torch.float32).clamp_min(1e-6)
            total = total + (distance / size if self.recipe.normalize else distance)
        return total / len(fake)


class _frozen:
    """Within the block no gradients are kept for a module's parameters, though they pass through it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.module.requires_grad_(True)
