"""The optimizers of both sides of the training: gradients averaged over processes, unscaled, clipped, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vocable.training.processes import average_gradients
from vocable.training.recipe import Optimizer
from vocable.training.state import load_optimizer_tensors, optimizer_tensors

PATIENCE = 10  #: steps in a row whose gradients are not finite


class Updater:
    """A step: `backward` for every part of the batch, then `update`."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        recipe: Optimizer,
        *,
        float16: bool,
        matrices: Iterable[nn.Parameter] = (),
        section: str = "optimizer",
    ) -> None:
        """matrices: the parameters that Muon trains where the recipe has a learning rate for it; AdamW trains all
        others. section: the recipe's name in errors."""
        self.parameters = [p for p in parameters if p.requires_grad]
        self.clip_norm, self.section, self.skipped_in_a_row = recipe.clip_norm, section, 0
        chosen = {id(p) for p in matrices} if recipe.muon else set()
        others = [p for p in self.parameters if id(p) not in chosen]
        decay = recipe.weight_decay
        adamw = torch.optim.AdamW(others, recipe.learning_rate, recipe.betas, weight_decay=decay, fused=True)
        #: Each optimizer by name, with its learning rate.
        self.optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"": (adamw, recipe.learning_rate)}
        if chosen:
            if not hasattr(torch.optim, "Muon"):
                raise ValueError(f"{section}.muon needs torch 2.9 or newer, this is {torch.__version__}: set it to 0")
            hidden = [p for p in self.parameters if id(p) in chosen]
            self.optimizers["muon."] = torch.optim.Muon(hidden, recipe.muon, weight_decay=decay), recipe.muon
        # float16 has no room for small gradients: the loss is scaled up until they overflow, then down again.
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=float16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a scalar, to what is there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, share: float) -> float | None:
        """Take a step at `share` of the learning rate and clear the gradients; returns their norm before clipping.

        None where it is not finite, in any process: then no parameter has changed. ValueError at the `PATIENCE`-th
        time in a row: the next step would fare no better.
        """
        for optimizer, learning_rate in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * share
        average_gradients(self.parameters)
        for optimizer, _ in self.optimizers.values():
            self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.clip_norm))
        finite = math.isfinite(norm)
        if finite:
            for optimizer, _ in self.optimizers.values():
                self.scaler.step(optimizer)
        self.scaler.update()
        self.clear()
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == PATIENCE:
            raise ValueError(
                f"the gradients were not finite {PATIENCE} times in a row: lower {self.section}.learning_rate or "
                f"{self.section}.clip_norm and begin in a new folder, or check the data with `vocable prepare check`"
            )
        return norm if finite else None

    def clear(self) -> None:
        """Forget the gradients, and take no step."""
        for optimizer, _ in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        tensors = {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        for name, (optimizer, _) in self.optimizers.items():
            tensors |= {f"{name}{key}": value for key, value in optimizer_tensors(optimizer).items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        by_name: dict[str, dict[str, Tensor]] = {name: {} for name in ("scaler.", *self.optimizers)}
        for key, value in tensors.items():
            name = next((name for name in ("scaler.", "muon.") if key.startswith(name)), "")
            by_name[name][key.removeprefix(name)] = value
        if scaler := by_name.pop("scaler."):
            self.scaler.load_state_dict({name: value.item() for name, value in scaler.items()})
        for name, (optimizer, _) in self.optimizers.items():
            load_optimizer_tensors(optimizer, by_name[name])
