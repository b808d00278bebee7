"""One run in several processes, on as many GPUs or nodes, when `accelerate launch` or torchrun starts it.

Each process works on its micro-batches of every step. Gradients and codebook statistics are then summed, so that all
processes have the same model after every step: that of one process with the whole batch. In a single process, the
functions here return their arguments unchanged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor

from vocable.extras import need

LONGEST_WAIT = timedelta(days=7)  #: timeout of barriers: one process may extract a teacher's features of a whole corpus


class Processes:
    """Barriers between the processes of a run.

    They have a process group of their own, with a timeout of days. Exchanges of tensors keep torch's timeout of
    minutes, so a process that hangs ends the run.
    """

    def __init__(self) -> None:
        several = world_size() > 1
        self.group = torch.distributed.new_group(timeout=LONGEST_WAIT, backend="gloo") if several else None

    def wait_for_everyone(self) -> None:
        """Block until every process has called this."""
        if self.group is not None:
            torch.distributed.barrier(self.group)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the first process, then in all others at once."""
        if rank() > 0:
            self.wait_for_everyone()
        yield
        if rank() == 0:
            self.wait_for_everyone()


def join(device: str) -> tuple[torch.device, Processes]:
    """Connect to the other processes of the run; return this process's device, and the barriers.

    device: "cpu", or "cuda" for the GPU that the launcher gives this process. Raises ValueError if there is no such
    device.
    """
    accelerate = need("accelerate", "train")
    state = accelerate.PartialState(cpu=device == "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is missing
        raise ValueError(f"no device {device!r} here: --set device=cpu, or install a torch with CUDA") from error
    own = torch.device(device) if device == "cpu" or state.num_processes == 1 else state.device
    return own, Processes()


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place, and return it. Its shape is the same in each process."""
    if world_size() > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all processes, in order of rank. Their shape is the same in each process."""
    if world_size() == 1:
        return tensor
    gathered = [torch.empty_like(tensor) for _ in range(world_size())]
    torch.distributed.all_gather(gathered, tensor.contiguous())
    return torch.cat(gathered)


def largest(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the maximum of each value over all processes, so that all of them stop at the same step."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return [float(v) for v in tensor]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over all processes, in one exchange.

    DistributedDataParallel would overlap the exchange with the backward pass. It is not used because two networks train
    in turn, some parameters have no gradient in some steps, and some passes begin at the latents.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = sum_over_processes(torch.cat([g.flatten() for g in gradients])) / world_size()
    means = torch.split(flat, [g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
