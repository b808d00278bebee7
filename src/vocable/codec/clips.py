"""What users hand in, checked: waveforms of any accepted form as a list of clips, their lengths; and layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.tokens import TokensError

#: A waveform [L], a batch [B, L], or a list of [L]: float, full scale at 1.0.
Waveforms = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


def check_fit(lengths: Tensor, frames: int, hop: int) -> None:
    if int(lengths.max()) > frames * hop or int(lengths.min()) < 1:
        raise TokensError(f"num_samples must be 1 to {frames * hop} for {frames} frames, not {lengths.tolist()}")


def as_clips(waveform: Waveforms, num_samples: Tensor | Sequence[int] | None) -> list[Tensor]:
    """The clips of a batch as checked float32 [L] tensors."""
    if isinstance(waveform, (Tensor, np.ndarray)):
        whole = _as_tensor(waveform)
        if whole.ndim not in (1, 2):
            raise AudioError(f"a waveform is [L] or [B, L], not {list(whole.shape)}; drop or average the channel axis")
        clips = list(whole) if whole.ndim == 2 else [whole]
    elif isinstance(waveform, Sequence) and not isinstance(waveform, (str, bytes)):
        if not all(isinstance(w, (Tensor, np.ndarray)) for w in waveform):
            raise AudioError("a list of waveforms holds tensors or arrays [L]; read files with vocable.audio.read")
        clips = [_as_tensor(w) for w in waveform]
    else:
        raise AudioError(f"a waveform is a tensor or a numpy array, not {type(waveform).__name__}")
    if not clips:
        raise AudioError("an empty batch: give at least one waveform")
    if num_samples is not None:
        lengths = checked_lengths(num_samples, len(clips)).tolist()
        if any(not 0 <= n <= len(c) for c, n in zip(clips, lengths, strict=True)):
            raise AudioError(f"num_samples {lengths} do not fit the waveforms' lengths {[len(c) for c in clips]}")
        clips = [c[:n] for c, n in zip(clips, lengths, strict=True)]
    for i, clip in enumerate(clips):
        if clip.ndim != 1:
            raise AudioError(f"waveform {i} has shape {list(clip.shape)}; each one in a list is [L]")
        if not clip.dtype.is_floating_point:
            raise AudioError(f"waveform {i} is {clip.dtype}; floats with full scale 1.0 are expected (int16: / 32768)")
        if len(clip) == 0:
            raise AudioError(f"waveform {i} is empty")
        if not bool(torch.isfinite(clip).all()):
            raise AudioError(f"waveform {i} holds NaN or infinite samples")
        peak = float(clip.abs().max())
        if peak > 100.0:
            raise AudioError(f"waveform {i} peaks at {peak:.0f}; full scale is 1.0 (int16: / 32768)")
    return [c.detach().float() for c in clips]


def _as_tensor(waveform: Tensor | np.ndarray) -> Tensor:
    try:
        tensor = torch.as_tensor(waveform)
    except TypeError as error:  # an array of objects, strings, long doubles
        raise AudioError(f"a waveform of {waveform.dtype} cannot be used; use float32") from error
    if tensor.ndim == 0:
        raise AudioError("a waveform has at least one axis, this is a single number")
    return tensor


def checked_lengths(num_samples: Tensor | Sequence[int], batch: int) -> Tensor:
    try:
        lengths = torch.as_tensor(num_samples).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"num_samples are whole numbers, not {num_samples!r}") from error
    if lengths.dtype.is_floating_point and lengths.numel():
        raise ValueError(f"num_samples are whole numbers, not {lengths.tolist()}")
    lengths = lengths.long()
    if lengths.shape != (batch,):
        raise ValueError(f"num_samples needs one number for each of the {batch} clips, not shape {list(lengths.shape)}")
    return lengths


def layer_range(layers: slice | None, num_quantizers: int) -> tuple[int, int]:
    """`layers` of a codec that has so many, as (start, stop); None: all. ValueError for what is no run of them."""
    if layers is None:
        return 0, num_quantizers
    if not isinstance(layers, slice):
        raise ValueError(f"layers is a slice: slice(0, {layers}) for the first {layers}, not {layers!r}")
    try:
        start, stop, step = layers.indices(num_quantizers)
    except TypeError as error:
        raise ValueError(f"layers is a slice of whole numbers, not {layers!r}") from error
    if step != 1 or start >= stop or (layers.stop or 0) > num_quantizers:
        raise ValueError(f"{layers} selects no run of the {num_quantizers} layers")
    return start, stop
