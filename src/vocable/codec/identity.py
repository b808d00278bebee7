"""Ids computed from weights, on first use, and cached until the weights change."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 16  #: approximate number of values of each tensor in a fingerprint
#: Tensors with more values are sampled at their start only: other values would read pages of a memory-mapped file.
SPREAD = 2**20


class Identified(nn.Module):
    """Base class of modules with ids that identify their weights.

    Hashing all weights takes too long for every call, so an id is cached together with a fingerprint of its weights. It
    stays valid through operations that change no weight: another device or dtype, train() and eval(), a copy, a pickle,
    and load_state_dict of the same weights, called on this module or on a module that contains it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ids: dict[str, tuple[str, object]] = {}
        self._loaded_again: dict[str, str] = {}
        self.register_load_state_dict_post_hook(_after_load)  # type: ignore[no-untyped-call]

    @abstractmethod
    def weights_of(self, name: str) -> list[Tensor]:
        """Return the weights that the id `name` depends on."""

    def current_ids(self) -> dict[str, str]:
        """Return the cached ids that are still valid, by name."""
        return {name: kept for name, (kept, seen) in self._ids.items() if seen == fingerprint(self.weights_of(name))}

    def keep_ids(self, ids: Mapping[str, str]) -> None:
        """Cache these ids for the current weights."""
        self._ids = {name: (kept, fingerprint(self.weights_of(name))) for name, kept in ids.items()}

    def id_of_weights(self, name: str, compute: Callable[[], str]) -> str:
        """Return the id `name`, computed again if its weights have changed."""
        seen = fingerprint(self.weights_of(name))
        kept = self._ids.get(name)
        if kept is None or kept[1] != seen:
            kept = self._ids[name] = compute(), seen
        return kept[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Identified:
        ids = self.current_ids()  # .to() and similar methods do not change the ids
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.keep_ids(ids)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        ids = self.current_ids()
        own = self.state_dict() if ids else {}
        coming = {key: state_dict[prefix + key] for key in own if prefix + key in state_dict}
        same = len(coming) == len(own) and all(torch.equal(coming[key].to(own[key]), own[key]) for key in own)
        self._loaded_again = ids if same else {}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ids": self.current_ids()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.keep_ids(state["_ids"])


def _after_load(module: nn.Module, _: object) -> None:
    assert isinstance(module, Identified)
    module.keep_ids(module._loaded_again)


def weights_digest(tensors: Mapping[str, Tensor], settings: object = None, names: Iterable[str] | None = None) -> str:
    """Return 40 bits of the SHA-256 of `settings`, as JSON, and of the tensors in float32, sorted by name.

    names: the tensors to hash (None: all).
    """
    digest = hashlib.sha256(b"" if settings is None else json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors if names is None else names):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:10]


def fingerprint(weights: Iterable[Tensor]) -> object:
    """Return a value that differs if weights have changed; it takes about the time of a small layer.

    It holds the address, torch's version counter and a few values of each tensor. The values are needed because torch
    does not count writes to `.data`, which are often used to swap in averaged weights.
    """
    tensors = [tensor.detach() for tensor in weights]
    places = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
    values = [_some(t.flatten()) for t in tensors if not t.is_meta]
    together = [v.to(values[0].device, torch.float32) for v in values]
    return places, torch.cat(together).cpu().numpy().tobytes() if together else b""


def _some(values: Tensor) -> Tensor:
    return values[:SAMPLES] if len(values) > SPREAD else values[:: -(-len(values) // SAMPLES)]
