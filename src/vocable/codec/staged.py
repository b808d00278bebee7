"""What the encoders and decoders of both architectures are: `before`, recurrent layers with a skip, and `after`.

What lies before and after the recurrence sees a few frames to either side. So long clips can be worked on chunk by
chunk (long.py), and short ones of other lengths apart from each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vocable.codec.layers import frame_mask

#: Clips of a batch that differ by less are padded to each other on a CPU: another call costs as much as 16 frames do.
ALIKE_FRAMES = 16


class Staged(nn.Module, ABC):
    """An encoder, speech [B, L] -> latents [B, T, D], or a decoder, latents [B, T, D] -> speech [B, T * hop_length].

    Lengths are int64 [B] on the CPU: valid samples or frames of each clip; None: all of them.
    """

    rows_in: int  #: rows of the input to a frame
    rows_out: int  #: and of the output
    before_context: tuple[int, int]  #: frames before and after the current one that `before` sees, at most
    after_context: tuple[int, int]  #: and `after`

    def compile_stages(self) -> None:
        """Compile `before` and `after` with torch.compile; a recurrent layer is one library call already."""
        self.before = torch.compile(self.before, dynamic=True)  # type: ignore[method-assign]
        self.after = torch.compile(self.after, dynamic=True)  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, object]:
        # Compiled ones belong to this object: a copy of it, or one that was pickled, begins with its own.
        return {key: value for key, value in self.__dict__.items() if key not in ("before", "after")}

    @abstractmethod
    def before(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, rows, ...] -> [B, T, C]. `lengths` are of rows."""

    @property
    @abstractmethod
    def recurrent_layers(self) -> Sequence[nn.Module]:
        """Each maps [B, T, C] and its mask to [B, T, C']."""

    @abstractmethod
    def skip(self, x: Tensor, y: Tensor) -> Tensor:
        """The recurrence's input and output together."""

    @abstractmethod
    def after(self, x: Tensor, num_frames: Tensor | None = None, first_frame: int = 0) -> Tensor:
        """[B, T, C'] to what comes out. first_frame: the number of the first frame in its clip."""

    def recur(self, x: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """The recurrent layers and the skip around them: [B, T, C] -> [B, T, C']."""
        mask, y = frame_mask(num_frames, x.shape[1], x), x
        for layer in self.recurrent_layers:
            y = layer(y, mask)
        return self.skip(x, y)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        frames = None if lengths is None else -(-lengths // self.rows_in)
        return self.after(self.recur(self.before(x, lengths), frames), frames)


def run_batch(staged: Staged, x: Tensor, lengths: Tensor) -> Tensor:
    """What `staged(x, lengths)` gives, in inference, at least as wide as the longest clip; what lies behind a clip's
    end is arbitrary.

    On a CPU, work on padding is work: clips of about the same length go together, and meet the others in the recurrence
    alone, which reads its weights once for all of them.
    """
    frames = -(-lengths // staged.rows_in)
    groups = _alike(frames)
    if x.device.type != "cpu" or len(groups) == 1:
        out: Tensor = staged(x, lengths)
        return out
    x = _by_group(staged.before, x, lengths, groups)
    return _by_group(staged.after, staged.recur(x, frames), frames, groups)


def _alike(frames: Tensor) -> list[list[int]]:
    """Which clips go together: indices into the batch, the longest first."""
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
