"""Ids that follow from weights: computed when they are first asked for, and kept as long as the weights stay."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 16  #: values of each tensor that a fingerprint holds, about
SPREAD = 2**20  #: of larger tensors the first values are taken: others would draw pages of a mapped file into memory


class Identified(nn.Module):
    """A module with ids that name its weights.

    Hashing all weights takes too long for every call, so an id is kept together with a fingerprint of the weights that
    it names. It outlives what changes no weight: another device or dtype, train() and eval(), a copy, a pickle, and
    load_state_dict of the weights that are there already, whether called on this module or on one around it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ids: dict[str, tuple[str, object]] = {}
        self._loaded_again: dict[str, str] = {}
        self.register_load_state_dict_post_hook(_after_load)  # type: ignore[no-untyped-call]

    @abstractmethod
    def weights_of(self, name: str) -> list[Tensor]:
        """The weights that the id `name` names."""

    def current_ids(self) -> dict[str, str]:
        """The ids that are known and still name the weights, by name."""
        return {name: kept for name, (kept, seen) in self._ids.items() if seen == fingerprint(self.weights_of(name))}

    def keep_ids(self, ids: Mapping[str, str]) -> None:
        """Give the weights that are there now these ids."""
        self._ids = {name: (kept, fingerprint(self.weights_of(name))) for name, kept in ids.items()}

    def id_of_weights(self, name: str, compute: Callable[[], str]) -> str:
        """The id `name`, computed anew if weights have changed."""
        seen = fingerprint(self.weights_of(name))
        kept = self._ids.get(name)
        if kept is None or kept[1] != seen:
            kept = self._ids[name] = compute(), seen
        return kept[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Identified:
        ids = self.current_ids()  # .to() and its like: a way to run the same weights
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

    names: the tensors that count (None: all of them).
    """
    digest = hashlib.sha256(b"" if settings is None else json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors if names is None else names):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:10]


def fingerprint(weights: Iterable[Tensor]) -> object:
    """What changes when weights do, in about the time of a small layer.

    Where they lie and how often torch counted a change; and a few values of each, since torch does not count writes
    through `.data`, by which averaged weights are often swapped in.
    """
    tensors = [tensor.detach() for tensor in weights]
    places = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
    values = [_some(t.flatten()) for t in tensors if not t.is_meta]
    together = [v.to(values[0].device, torch.float32) for v in values]
    return places, torch.cat(together).cpu().numpy().tobytes() if together else b""


def _some(values: Tensor) -> Tensor:
    return values[:SAMPLES] if len(values) > SPREAD else values[:: -(-len(values) // SAMPLES)]
