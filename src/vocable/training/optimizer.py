"""AdamW as both sides of the training use it: gradients averaged over processes, unscaled, clipped, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vocable.training.processes import average_gradients
from vocable.training.state import load_optimizer_tensors, optimizer_tensors


class Updater:
    """A step: `backward` for every part of the batch, then `update`."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float,
        float16: bool,
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.learning_rate, self.clip_norm = learning_rate, clip_norm
        self.optimizer = torch.optim.AdamW(self.parameters, learning_rate, betas, weight_decay=weight_decay, fused=True)
        # float16 has no room for small gradients: the loss is scaled up until they overflow, then down again.
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=float16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a scalar, to what is there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, share: float) -> float | None:
        """Take a step at `share` of the learning rate and clear the gradients; returns their norm before clipping.

        None where it is not finite, in any process: then no parameter has changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * share
        average_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.clip_norm))
        finite = math.isfinite(norm)
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.clear()
        return norm if finite else None

    def clear(self) -> None:
        """Forget the gradients, and take no step."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        scaler = {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        return optimizer_tensors(self.optimizer) | scaler

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        scaler = {k.removeprefix("scaler."): v.item() for k, v in tensors.items() if k.startswith("scaler.")}
        if scaler:
            self.scaler.load_state_dict(scaler)
        load_optimizer_tensors(self.optimizer, {k: v for k, v in tensors.items() if not k.startswith("scaler.")})
