"""Caches of the keys and values of earlier positions, for causal passes of the transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class KVCache:
    """Keys and values of the positions so far, for inference. All rows (sequences) of a batch have the same length.

    The takes of a text start with the same prompt and text, and the particle filter (`KVCache.select`) replaces takes
    by copies of others, so after a while all takes have the same first part too. Such a shared prefix is stored once,
    in row 0, and attended to by one matrix product for all rows, which reads its keys and values from memory once
    instead of once per row. The prefix grows in two ways:

    - A pass of one row, while all positions are shared, writes positions for all rows.
    - `select` finds how many more positions all rows have from the same row. For that it keeps, for each segment of
      positions between two calls, the row that each row's values come from.

    keys, values: [layers, B, heads, N, head size]; allocated once for N positions, by `Transformer.cache`.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0  #: positions that are filled
        self.shared_length = 0  #: positions of the shared prefix
        #: Segments of the filled positions after the shared prefix: where each ends, and the source row of each row.
        self._segments: list[tuple[int, list[int]]] = []

    @property
    def rows(self) -> int:
        """The number of rows B."""
        return self.keys.shape[1]

    def check(self, rows: int, positions: int) -> None:
        """Raise ValueError if a pass of `rows` rows and `positions` new positions does not fit."""
        room = self.keys.shape[3]
        if rows != self.rows and (rows > 1 or self.shared_length < self.length):
            raise ValueError(f"the batch has {rows} rows, the cache {self.rows}")
        if self.length + positions > room:
            raise ValueError(
                f"the cache is too small: {self.length} of its {room} positions are filled, {positions} more come"
            )

    def positions(self, count: int) -> Tensor:
        """Return the next `count` positions: float32 [S]."""
        return torch.arange(self.length, self.length + count, dtype=torch.float32, device=self.keys.device)

    def causal_mask(self, count: int) -> tuple[Tensor | None, bool]:
        """Return mask and is_causal of the next `count` positions, as scaled_dot_product_attention takes them."""
        if not self.length:  # torch's own causal mask is for queries that begin at the first key
            return None, True
        if count == 1:
            return None, False
        mask = torch.ones(count, self.length + count, dtype=torch.bool, device=self.keys.device)
        return mask.tril(self.length), False

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Write S new positions of one layer, and attend to all positions so far.

        queries, keys, values: [B, heads, S, head size], or [1, heads, S, head size] to write positions for all rows.
        mask, is_causal: as scaled_dot_product_attention takes them. Returns the shape of `queries`.
        """
        rows, end = len(keys), self.length + keys.shape[2]
        self.keys[layer, :rows, :, self.length : end] = keys
        self.values[layer, :rows, :, self.length : end] = values
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        if rows == 1 or not self.shared_length:
            return F.scaled_dot_product_attention(queries, keys[:rows], values[:rows], mask, is_causal=is_causal)
        shared, own = slice(0, self.shared_length), slice(self.shared_length, end)
        queries = queries / math.sqrt(queries.shape[3])
        scores = queries @ keys[:, :, own].mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, own], -torch.inf)
        scores = torch.cat([_shared_product(queries, keys[0, :, shared].mT), scores], 3)
        weights = scores.float().softmax(3).to(values.dtype)
        return _shared_product(weights[..., shared], values[0, :, shared]) + weights[..., own] @ values[:, :, own]

    def advance(self, rows: int, positions: int) -> None:
        """Count `positions` as filled, after a pass of `rows` rows through all layers."""
        self.length += positions
        if rows == 1:
            self.shared_length = self.length

    def select(self, rows: list[int]) -> None:
        """Replace the B rows by copies of `rows`: row i of the new batch is row `rows[i]` of the old one."""
        assert len(rows) == self.rows
        own = slice(self.shared_length, self.length)
        for memory in (self.keys, self.values):
            memory[:, :, :, own] = memory[:, rows, :, own]
        segments = [*self._segments, (self.length, list(range(len(rows))))]
        self._segments = [(end, [sources[row] for row in rows]) for end, sources in segments]
        while self._segments and len(set(self._segments[0][1])) == 1:
            self.shared_length, _ = self._segments.pop(0)


class Caches:
    """The caches of several texts, whose next position is computed in one pass.

    The rows of a pass are those of the caches, one cache after another. The linear layers of the transformer then read
    their weights once for all texts; each text attends to its own cache.
    """

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.caches = caches

    @property
    def rows(self) -> int:
        """The number of rows of all caches."""
        return sum(cache.rows for cache in self.caches)

    def check(self, rows: int, positions: int) -> None:
        """Raise ValueError if a pass of `rows` rows and `positions` new positions does not fit."""
        if rows != self.rows or positions != 1:
            raise ValueError(f"a pass over several caches is 1 position of {self.rows} rows, not {positions} of {rows}")
        for cache in self.caches:
            cache.check(cache.rows, positions)

    def positions(self, count: int) -> Tensor:
        """Return the next positions of each row: float32 [B, 1, S], which broadcasts over heads."""
        rows = [cache.positions(count).expand(cache.rows, 1, count) for cache in self.caches]
        return torch.cat(rows)

    def causal_mask(self, count: int) -> tuple[Tensor | None, bool]:
        """Return mask and is_causal: one new position attends to all earlier ones."""
        return None, False

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Write the new position of one layer, and attend, as `KVCache.attend` does."""
        rows = [cache.rows for cache in self.caches]
        parts = zip(self.caches, *(torch.split(x, rows) for x in (queries, keys, values)), strict=True)
        return torch.cat([cache.attend(layer, q, k, v, mask, is_causal) for cache, q, k, v in parts])

    def advance(self, rows: int, positions: int) -> None:
        """Count `positions` as filled, after a pass through all layers."""
        for cache in self.caches:
            cache.advance(cache.rows, positions)


def _shared_product(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply x [B, heads, S, I] by a matrix that all rows share, [heads, I, O], in one product: [B, heads, S, O]."""
    by_head = x.transpose(0, 1)
    return (by_head.flatten(1, 2) @ matrix).reshape(*by_head.shape[:3], -1).transpose(0, 1)
