"""One run in many processes, on as many GPUs or nodes, when `accelerate launch` or torchrun starts it.

Each process works on its part of every batch. Gradients and codebook statistics are then summed, so that all hold the
same model after every step, and the same as one process with the whole batch would. Alone, nothing here does anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor

from vocable.extras import need

LONGEST_WAIT = timedelta(days=7)  #: for a teacher's features of a whole corpus


class Processes:
    """What the processes of a run wait for each other with, as long as it takes.

    Waiting has a process group of its own. Exchanges of tensors keep torch's timeout of minutes, so a process that
    hangs ends the run.
    """

    def __init__(self) -> None:
        several = world_size() > 1
        self.group = torch.distributed.new_group(timeout=LONGEST_WAIT, backend="gloo") if several else None

    def wait_for_everyone(self) -> None:
        """Return when every process has called this."""
        if self.group is not None:
            torch.distributed.barrier(self.group)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the first process, then in all others."""
        if rank() > 0:
            self.wait_for_everyone()
        yield
        if rank() == 0:
            self.wait_for_everyone()


def join(device: str) -> tuple[torch.device, Processes]:
    """Find the other processes; returns this one's device, and what waits for the others.

    device: "cpu", or "cuda" for the GPU that the launcher gives this process. Raises ValueError without one.
    """
    accelerate = need("accelerate", "train")
    state = accelerate.PartialState(cpu=device == "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch says of a device it has not
        raise ValueError(f"no device {device!r} here: --set device=cpu, or install a torch with CUDA") from error
    own = torch.device(device) if device == "cpu" or state.num_processes == 1 else state.device
    return own, Processes()


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
