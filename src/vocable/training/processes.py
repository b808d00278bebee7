"""One run in many processes, on as many GPUs or nodes, when `accelerate launch` or torchrun starts it.

Each process works on its part of every batch. Gradients and codebook statistics are then summed, so that all hold the
same model after every step, and the same as one process with the whole batch would. Alone, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from vocable.extras import need


def join(device: str) -> tuple[torch.device, Any]:
    """Find the other processes; returns this one's device, and accelerate's PartialState.

    device: "cpu", or "cuda" for the GPU that the launcher gives this process. Raises ValueError without one.
    """
    accelerate = need("accelerate", "train")
    # The first waits for a teacher's features of a whole corpus, the others for it.
    state = accelerate.PartialState(cpu=device == "cpu", timeout=timedelta(days=7))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch says of a device it has not
        raise ValueError(f"no device {device!r} here: --set device=cpu, or install a torch with CUDA") from error
    return torch.device(device) if device == "cpu" or state.num_processes == 1 else state.device, state


def rank() -> int:
    """This process's number, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes of a tensor of the same shape in each; worked out in place."""
    if world_size() > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def gather_rows(tensor: Tensor) -> Tensor:
    """The rows of all processes' tensors, of the same shape in each, in order of their numbers."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def largest(values: Sequence[float], device: torch.device) -> list[float]:
    """The largest of each value over all processes: what they stop by, they must agree on."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return [float(v) for v in tensor]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over all processes, in one exchange.

    (DistributedDataParallel would hide some of its time behind the backward pass; against that stand two networks that
    train in turn, parameters without gradients, and passes that begin at the latents.)
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = sum_over_processes(torch.cat([g.flatten() for g in gradients])) / world_size()
    means = torch.split(flat, [g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
