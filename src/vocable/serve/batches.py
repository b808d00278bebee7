"""Encoding and decoding of clips in batches. The results are those of each clip alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vocable.codec.base import Codec
from vocable.codec.clips import layer_range
from vocable.codec.long import blocks_of
from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.batches import padded_batches
from vocable.lm.cancelling import IsCancelled, stop_if_cancelled
from vocable.serve.jobs import Decode, Encode, Refused, Result, Sound, TooLarge
from vocable.serve.payloads import read_recording, read_tokens, refusals, tokens_of

#: Seconds of audio in a batch, with padding: about a second of work. A clip that is alone in its batch is computed in
#: chunks. Between two batches or chunks, the work can be cancelled.
BATCH_SECONDS = 40.0

Clip = TypeVar("Clip")
JobKind = TypeVar("JobKind")
Outcome = Result | Refused


def encode(codec: Codec, jobs: Sequence[Encode], *, longest: float, cancelled: IsCancelled) -> list[Outcome]:
    """Encode the recordings of jobs that ask for the same layers; a recording lasts at most `longest` seconds.

    cancelled: asked between two batches of clips or two blocks of a long one. Raises `Cancelled`.
    """
    layers = jobs[0].layers

    def read(job: Encode) -> np.ndarray:
        layer_range(layers, codec.num_quantizers)
        return read_recording(job.recording, sample_rate=codec.sample_rate, longest=longest)

    def compute(batch: Mapping[int, np.ndarray]) -> list[Result]:
        clips = list(batch.values())
        if len(clips) == 1:
            encoded = codec.encode_long(_Blocks(clips[0], cancelled), layers=layers)
        else:
            encoded = codec.encode(clips, layers=layers)
        return [tokens_of(one, jobs[i].format) for i, one in zip(batch, encoded.clips(), strict=True)]

    return _in_batches(jobs, read, lambda clip: len(clip) / codec.sample_rate, compute, cancelled)


def decode(codec: Codec, jobs: Sequence[Decode], *, longest: float, cancelled: IsCancelled) -> list[Outcome]:
    """Decode the tokens of jobs; each clip lasts at most `longest` seconds. cancelled: as in `encode`."""

    def seconds(clip: Encoded) -> float:
        return int(clip.num_samples) / codec.sample_rate

    def read(job: Decode) -> Encoded:
        encoded = read_tokens(job.tokens, job.format)
        if len(encoded) != 1:
            raise TokensError(f"the file holds {len(encoded)} clips: send one clip in a request")
        if seconds(encoded) > longest:
            raise TooLarge(f"the tokens last {seconds(encoded):.0f} s, and the limit is {longest:g} s")
        codes, layers = codec.select_layers(encoded, job.layers)
        codes = codes[:, :, : codec.num_frames(int(encoded.num_samples))]
        codec.embed(codes, layers=layers)  # raises TokensError for codes that this codec does not have
        return dataclasses.replace(
            encoded, codes=codes, layers=layers, num_frames=torch.tensor([codes.shape[2]]), token_id=codec.token_id
        )

    def compute(batch: Mapping[int, Encoded]) -> list[Result]:
        clips = list(batch.values())
        if len(clips) == 1:
            chunks = []
            for chunk in codec.decode_long(clips[0]):
                stop_if_cancelled(cancelled)
                chunks.append(chunk)
            waveforms = [torch.cat(chunks)]
        else:
            waveforms = codec.decode(_padded(clips)).clips()
        return [Sound(waveform.cpu().numpy(), codec.sample_rate) for waveform in waveforms]

    return _in_batches(jobs, read, seconds, compute, cancelled)


def _in_batches(
    jobs: Sequence[JobKind],
    read: Callable[[JobKind], Clip],
    seconds: Callable[[Clip], float],
    compute: Callable[[Mapping[int, Clip]], Sequence[Result]],
    cancelled: IsCancelled,
) -> list[Outcome]:
    """Read the clip of each job, and compute their results in batches of clips of similar length.

    compute: of clips by the number of their job. A clip that is refused does not affect the others.
    """
    outcomes: dict[int, Outcome] = {}
    clips: dict[int, Clip] = {}
    for number, job in enumerate(jobs):
        try:
            with refusals():
                clips[number] = read(job)
        except Refused as error:
            outcomes[number] = error
    longest_first = sorted(clips, key=lambda number: -seconds(clips[number]))
    batches = list(padded_batches(longest_first, length=lambda number: seconds(clips[number]), limit=BATCH_SECONDS))
    while batches:
        stop_if_cancelled(cancelled)
        batch = batches.pop()
        try:
            with refusals():
                outcomes |= zip(batch, compute({number: clips[number] for number in batch}), strict=True)
        except Refused as error:
            if len(batch) == 1:
                outcomes[batch[0]] = error
            else:
                batches += [[number] for number in batch]
    return [outcomes[number] for number in range(len(jobs))]


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """The blocks of a clip, which raise `Cancelled` when the work is to stop."""

    clip: np.ndarray
    cancelled: IsCancelled

    def __iter__(self) -> Iterator[Tensor | np.ndarray]:
        for block in blocks_of(self.clip):
            stop_if_cancelled(self.cancelled)
            yield block


def _padded(clips: Sequence[Encoded]) -> Encoded:
    """Join clips into one batch.

    Raises TokensError if they hold different layers, if only some have a gain, or if one has a gain for each frame.
    """
    first = clips[0]
    if len(clips) > 1 and any(
        clip.layers != first.layers
        or (clip.gain is None) != (first.gain is None)
        or (clip.gain is not None and clip.gain.ndim == 2)
        for clip in clips
    ):
        raise TokensError("these clips cannot be decoded in one batch")
    codes = first.codes.new_zeros(len(clips), first.codes.shape[1], max(clip.codes.shape[2] for clip in clips))
    for row, clip in zip(codes, clips, strict=True):
        row[:, : clip.codes.shape[2]] = clip.codes[0]
    gains = [clip.gain for clip in clips if clip.gain is not None]
    return dataclasses.replace(
        first,
        codes=codes,
        num_frames=torch.cat([clip.num_frames for clip in clips]),
        num_samples=torch.cat([clip.num_samples for clip in clips]),
        gain=torch.cat(gains) if gains else None,
    )
