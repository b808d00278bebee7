"""The optimizer step of every model: codec, discriminators, vocoder and language models.

Gradients are averaged over processes, unscaled, clipped, and checked for NaN and infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vocable.training.processes import average_gradients
from vocable.training.recipe import Optimizer
from vocable.training.state import load_optimizer_tensors, optimizer_tensors

PATIENCE = 10  #: consecutive steps without finite gradients after which a run ends


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a model's weights, or None for a decay of 0.

    The average is a copy of the model; call its `update_parameters` after each step.
    """
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class Updater:
    """The optimizers of one set of parameters: call `backward` for every micro-batch of a step, then `update`."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        recipe: Optimizer,
        *,
        float16: bool,
        matrices: Iterable[nn.Parameter] = (),
        section: str = "optimizer",
    ) -> None:
        """matrices: the parameters that Muon trains if the recipe has a learning rate for it; AdamW trains all others.
        section: the recipe section that error messages name."""
        self.parameters = [p for p in parameters if p.requires_grad]
        self.clip_norm, self.section, self.skipped_in_a_row = recipe.clip_norm, section, 0
        for_muon = {id(p) for p in matrices} if recipe.muon else set()
        others = [p for p in self.parameters if id(p) not in for_muon]
        decay = recipe.weight_decay
        adamw = torch.optim.AdamW(others, recipe.learning_rate, recipe.betas, weight_decay=decay, fused=True)
        #: The optimizers with their highest learning rates, by the prefix of their tensors' names in the saved state.
        self.optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"": (adamw, recipe.learning_rate)}
        if for_muon:
            if not hasattr(torch.optim, "Muon"):
                raise ValueError(f"{section}.muon needs torch 2.9 or newer, this is {torch.__version__}: set it to 0")
            hidden = [p for p in self.parameters if id(p) in for_muon]
            self.optimizers["muon."] = torch.optim.Muon(hidden, recipe.muon, weight_decay=decay), recipe.muon
        # Small gradients underflow in float16, so the loss is multiplied by a scale, which falls when they overflow.
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=float16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a scalar, to the gradients of this step."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, factor: float) -> float | None:
        """Take a step at `factor` times the highest learning rate and clear the gradients.

        Returns the gradients' norm before clipping, or None if it is not finite in any process; then no parameter has
        changed. Raises ValueError after PATIENCE such steps in a row: the next one would end the same way.
        """
        for optimizer, learning_rate in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
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
        """Drop the gradients without taking a step."""
        for optimizer, _ in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the optimizers and of the loss scale as flat tensors."""
        tensors = {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        for prefix, (optimizer, _) in self.optimizers.items():
            tensors |= {f"{prefix}{key}": value for key, value in optimizer_tensors(optimizer).items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Load what `state_dict` returned."""
        by_prefix: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in ("scaler.", *self.optimizers)}
        for key, value in tensors.items():
            prefix = next((prefix for prefix in ("scaler.", "muon.") if key.startswith(prefix)), "")
            by_prefix[prefix][key.removeprefix(prefix)] = value
        if scaler := by_prefix.pop("scaler."):
            self.scaler.load_state_dict({name: value.item() for name, value in scaler.items()})
        for prefix, (optimizer, _) in self.optimizers.items():
            load_optimizer_tensors(optimizer, by_prefix[prefix])
