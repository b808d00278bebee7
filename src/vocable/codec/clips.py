"""Validation of user input: waveforms, lengths, codes and layer slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.audio import AudioError
from vocable.codec.tokens import TokensError

#: A waveform [L], a batch [B, L] or [B, 1, L], or a list of [L]: float, full scale at 1.0.
Waveforms = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]
MOST_CHANNELS = 64  #: largest number of channels of a recording; an array with more columns is taken for a batch


def check_fit(lengths: Tensor, frames: int, hop: int) -> None:
    """Raise TokensError unless each clip has 1 to `frames * hop` samples."""
    if int(lengths.max()) > frames * hop or int(lengths.min()) < 1:
        raise TokensError(f"num_samples must be 1 to {frames * hop} for {frames} frames, not {lengths.tolist()}")


def as_clips(waveform: Waveforms, num_samples: Tensor | Sequence[int] | None) -> list[Tensor]:
    """Return the clips of a batch as checked float32 tensors [L]. Raises AudioError for anything else."""
    if isinstance(waveform, (Tensor, np.ndarray)):
        clips = list(as_batch(_samples(waveform), num_samples))
    elif isinstance(waveform, Sequence) and not isinstance(waveform, (str, bytes)):
        if not all(isinstance(w, (Tensor, np.ndarray)) for w in waveform):
            raise AudioError("a list of waveforms holds tensors or arrays [L]; read files with vocable.audio.read")
        clips = [_samples(w) for w in waveform]
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
            raise AudioError(f"waveform {i} has shape {list(clip.shape)}; each one in a list is [L]: average channels")
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


def as_batch(waveform: Tensor, num_samples: Tensor | Sequence[int] | None) -> Tensor:
    """Return [L], [B, L] or [B, 1, L] as [B, L]. Raises AudioError for other shapes.

    Also raises it for a shape that is probably [L, channels], unless `num_samples` is given.
    """
    if waveform.ndim == 1:
        return waveform[None]
    if waveform.ndim == 3 and waveform.shape[1] == 1:
        return waveform.squeeze(1)
    if waveform.ndim != 2:
        raise AudioError(
            f"a waveform is [L], [B, L] or [B, 1, L], not {list(waveform.shape)}; drop or average the channel axis"
        )
    rows, columns = waveform.shape
    if num_samples is None and columns <= MOST_CHANNELS and rows >= 10 * columns > 0:
        raise AudioError(
            f"a waveform [{rows}, {columns}] is probably [samples, channels]: average the channels, waveform.mean(1); "
            "a batch is [B, L]"
        )
    return waveform


def at_rate(clips: list[Tensor], sample_rate: float | None, target: int) -> list[Tensor]:
    """Resample clips [L] from `sample_rate` (None: `target`) to `target` Hz."""
    if isinstance(sample_rate, np.generic):
        sample_rate = sample_rate.item()
    if sample_rate is None or sample_rate == target:
        return clips
    return [torch.from_numpy(audio.resample(c.cpu().numpy(), sample_rate, target)) for c in clips]


def checked_lengths(num_samples: Tensor | Sequence[int], batch: int) -> Tensor:
    """Return the lengths of `batch` clips as int64 [B] on the CPU. Raises ValueError for anything but integers."""
    try:
        lengths = torch.as_tensor(num_samples, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"num_samples are whole numbers, not {num_samples!r}") from error
    if lengths.dtype.is_floating_point and lengths.numel():
        raise ValueError(f"num_samples are whole numbers, not {lengths.tolist()}")
    lengths = lengths.long()
    if lengths.shape != (batch,):
        raise ValueError(f"num_samples needs one number for each of the {batch} clips, not shape {list(lengths.shape)}")
    return lengths


def lengths_of(num_samples: Tensor | Sequence[int] | None, batch: int, longest: int) -> Tensor:
    """Return the lengths of `batch` clips as int64 [B] on the CPU; None: `longest` for each."""
    return torch.full((batch,), longest, device="cpu") if num_samples is None else checked_lengths(num_samples, batch)


def checked_chunk(chunk_frames: int) -> int:
    """Return `chunk_frames`. Raises ValueError if it is below 1."""
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames must be at least 1, not {chunk_frames}")
    return chunk_frames


def silence_after(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Return the batch [B, L] with zeros after each clip's end."""
    # A product with a mask would keep NaN.
    valid = torch.arange(waveform.shape[1], device="cpu") < lengths[:, None]
    return torch.where(valid.to(waveform.device), waveform, 0)


def checked_codes(
    codes: Tensor | np.ndarray, layers: slice | None, codebook_sizes: Sequence[int], device: torch.device
) -> tuple[Tensor, int]:
    """Return codes as int64 [B, K', T] on `device`, and the index of their first layer.

    Raises TokensError for invalid codes.
    """
    start, stop = layer_range(layers, len(codebook_sizes))
    rows = stop - start
    if not isinstance(codes, (Tensor, np.ndarray)):
        raise TokensError(f"codes are a tensor, an array or an Encoded, not {type(codes).__name__}")
    try:
        codes = as_tensor(codes)
    except TypeError as error:  # an array of objects or strings
        raise TokensError(f"codes are integers, not {codes.dtype}") from error
    if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
        raise TokensError(f"codes are integers, not {codes.dtype}")
    shape = list(codes.shape)
    if codes.ndim != 3 or 0 in shape:
        hint = "; one clip is codes[None]" if codes.ndim == 2 and shape[0] == rows else ""
        raise TokensError(f"codes have shape [B, K, T], none of them 0, not {shape}{hint}")
    if shape[1] != rows and shape[0] == rows:
        raise TokensError(f"codes have shape {shape}, the official package's [K, B, T]: give codes.transpose(0, 1)")
    if shape[1] != rows:
        raise TokensError(
            f"codes have {shape[1]} rows, layers {start}:{stop} selects {rows}; "
            f"give their layers, for example slice(0, {shape[1]})"
        )
    codes = codes.to(device, torch.int64)
    sizes = torch.tensor(codebook_sizes[start:stop], device=device)[:, None]
    if bool(((codes < 0) | (codes >= sizes)).any()):
        low, high, largest = int(codes.min()), int(codes.max()), max(codebook_sizes[start:stop])
        raise TokensError(f"codes must be 0 to {largest - 1}, found {low} to {high}")
    return codes, start


def layer_range(layers: slice | None, num_quantizers: int) -> tuple[int, int]:
    """Resolve a layer slice to (start, stop); None means all.

    Raises ValueError unless it is a non-empty contiguous range of the `num_quantizers` layers.
    """
    if layers is None:
        return 0, num_quantizers
    if not isinstance(layers, slice):
        raise ValueError(f"layers is a slice: slice(0, {layers}) for the first {layers}, not {layers!r}")
    try:
        start, stop, step = layers.indices(num_quantizers)
    except TypeError as error:
        raise ValueError(f"layers is a slice of whole numbers, not {layers!r}") from error
    if step != 1 or start >= stop or (layers.stop or 0) > num_quantizers:
        raise ValueError(f"{layers} does not select one or more consecutive layers of {num_quantizers}")
    return start, stop


def as_tensor(array: Tensor | np.ndarray) -> Tensor:
    """Return an array as a tensor, which shares its memory unless that is read-only, reversed or byte-swapped."""
    if isinstance(array, Tensor):
        return array
    native = array.dtype.newbyteorder("=")
    if not array.flags.writeable or array.dtype != native or min(array.strides, default=0) < 0:
        array = np.array(array, native, order="C")
    return torch.from_numpy(array)


def _samples(waveform: Tensor | np.ndarray) -> Tensor:
    try:
        tensor = as_tensor(waveform)
    except TypeError as error:  # an array of objects, strings, long doubles
        raise AudioError(f"a waveform of {waveform.dtype} cannot be used; use float32") from error
    if tensor.ndim == 0:
        raise AudioError("a waveform has at least one axis, not a single number")
    return tensor
