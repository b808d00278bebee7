"""`Staged`, the base class of every encoder and decoder: a stage before the recurrence, the recurrent layers with a
residual connection around them, and a stage after the recurrence.

The two stages use only a few frames of context on each side of a frame. So a long clip can be processed in chunks
(long.py), and the clips of a batch in groups of similar lengths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vocable.codec.layers import frame_mask

#: On a CPU, clips whose lengths differ by fewer frames are padded to one batch: a call takes as long as 16 frames.
ALIKE_FRAMES = 16


class Staged(nn.Module, ABC):
    """An encoder, speech [B, L] -> latents [B, T, D], or a decoder, latents [B, T, D] -> speech [B, T * hop_length].

    Lengths are int64 [B] on the CPU: valid samples or frames of each clip (None: all).
    """

    rows_in: int  #: input rows per frame: samples for an encoder, 1 for a decoder
    rows_out: int  #: output rows per frame: 1 for an encoder, samples for a decoder
    before_context: tuple[int, int]  #: largest number of frames before and after a frame that `before` uses
    after_context: tuple[int, int]  #: largest number of frames before and after a frame that `after` uses

    def compile_stages(self) -> None:
        """Compile `before` and `after` with torch.compile; a recurrent layer is one library call already."""
        self.before = torch.compile(self.before, dynamic=True)  # type: ignore[method-assign]
        self.after = torch.compile(self.after, dynamic=True)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, object]:
        # Compiled stages refer to this object, so copies and unpickled objects get uncompiled stages of their own.
        return {key: value for key, value in self.__dict__.items() if key not in ("before", "after")}

    @abstractmethod
    def before(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the stage before the recurrence: [B, rows, ...] -> [B, T, C]. lengths: valid rows of each clip."""

    @property
    @abstractmethod
    def recurrent_layers(self) -> Sequence[nn.Module]:
        """The recurrent layers; each maps [B, T, C] and a mask to [B, T, C']."""

    @abstractmethod
    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the residual: combine the recurrence's input `x` and output `y`."""

    @abstractmethod
    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """Run the stage after the recurrence: [B, T, C'] -> the module's output.

        first_frame: index of the first frame in its clip.
        """

    def recur(self, x: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Run the recurrent layers and add the residual: [B, T, C] -> [B, T, C']."""
        mask, y = frame_mask(num_frames, x.shape[1], x), x
        for layer in self.recurrent_layers:
            y = layer(y, mask)
        return self.skip(x, y)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode or decode a batch, in the shapes of the class."""
        frames = None if lengths is None else -(-lengths // self.rows_in)
        return self.after(self.recur(self.before(x, lengths), frames), frames)


def run_batch(staged: Staged, x: Tensor, lengths: Tensor) -> Tensor:
    """Return `staged(x, lengths)` in inference; the rows after a clip's end are arbitrary.

    On a CPU, padding costs time, so the stages process clips in groups of similar lengths. The recurrence processes all
    clips as one batch, because most of its time is spent on reading its weights.
    """
    frames = -(-lengths // staged.rows_in)
    groups = _alike(frames)
    if x.device.type != "cpu" or len(groups) == 1:
        out: Tensor = staged(x, lengths)
        return out
    x = _by_group(staged.before, x, lengths, groups)
    return _by_group(staged.after, staged.recur(x, frames), frames, groups)


def _alike(frames: Tensor) -> list[list[int]]:
    """Group clips of similar lengths; return their indices in the batch, the longest first."""
    groups: list[list[int]] = []
    for i in frames.argsort(descending=True, stable=True).tolist():
        if groups and frames[groups[-1][0]] - frames[i] < ALIKE_FRAMES:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _by_group(
    stage: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, lengths: Tensor, groups: list[list[int]]
) -> Tensor:
    together: Tensor | None = None
    for group in groups:
        # A copy, because activations work in place.
        out = stage(x[group, : int(lengths[group].max())], lengths[group])
        if together is None:  # of the longest clips
            together = out.new_zeros(len(x), *out.shape[1:])
        together[group, : out.shape[1]] = out
    assert together is not None
    return together
