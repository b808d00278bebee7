"""The optimizers of both sides of the training: gradients averaged over processes, unscaled, clipped, checked."""

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
        muon: float = 0.0,
        matrices: Iterable[nn.Parameter] = (),
    ) -> None:
        """muon: the learning rate of Muon for `matrices`, which are among the parameters; 0: AdamW for all."""
        self.parameters = [p for p in parameters if p.requires_grad]
        self.clip_norm = clip_norm
        chosen = {id(p) for p in matrices} if muon else set()
        others = [p for p in self.parameters if id(p) not in chosen]
        adamw = torch.optim.AdamW(others, learning_rate, betas, weight_decay=weight_decay, fused=True)
        #: Each optimizer by name, with its learning rate.
        self.optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"": (adamw, learning_rate)}
        if chosen:
            hidden = [p for p in self.parameters if id(p) in chosen]
            self.optimizers["muon."] = torch.optim.Muon(hidden, muon, weight_decay=weight_decay), muon
        # float16 has no room for small gradients: the loss is scaled up until they overflow, then down again.
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=float16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a scalar, to what is there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, share: float) -> float | None:
        """Take a step at `share` of the learning rate and clear the gradients; returns their norm before clipping.

        None where it is not finite, in any process: then no parameter has changed.
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
