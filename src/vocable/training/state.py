"""The state of a run on disk: one safetensors file with tensors and a JSON header. No pickles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vocable.files import atomic_path


def save_state(path: Path, groups: dict[str, dict[str, Tensor]], header: dict[str, Any]) -> None:
    """Write groups of tensors, named `group/key` in the file, and the header, atomically."""
    tensors = {f"{group}/{key}": t.detach().cpu().contiguous() for group, ts in groups.items() for key, t in ts.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"vocable": json.dumps(header)})


def load_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read the groups of tensors and the header that `save_state` wrote. Raises ValueError for a damaged file."""
    with _opened(path) as (file, header):
        groups: dict[str, dict[str, Tensor]] = {}
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = file.get_tensor(key)
    return groups, header


def load_header(path: Path) -> dict[str, Any]:
    """Read the header only. Raises ValueError for a damaged file."""
    with _opened(path) as (_, header):
        return header


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["vocable"])
            if not isinstance(header, dict):
                raise ValueError("its header is no mapping")
            yield file, header
    except (OSError, KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: not a checkpoint of this trainer ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as flat tensors: `3.exp_avg` belongs to its fourth parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(t) for i, values in state.items() for name, t in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what `optimizer_tensors` returned; hyperparameters stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
