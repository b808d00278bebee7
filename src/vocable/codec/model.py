"""`SpeechTokenizer`: encodes speech to codes, and decodes codes to speech."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec import checkpoint
from vocable.codec.base import Codec
from vocable.codec.clips import (
    Waveforms,
    as_clips,
    at_rate,
    check_fit,
    checked_chunk,
    layer_range,
    lengths_of,
    silence_after,
)
from vocable.codec.frames import FrameSteps
from vocable.codec.layers import Recurrence, inference, no_autocast, reduce_recurrence
from vocable.codec.level import HighPass, condition, level_gain, sample_gains
from vocable.codec.long import CHUNK_FRAMES, blocks_of, run_staged
from vocable.codec.network import CodecNetwork, Parts
from vocable.codec.staged import Staged, run_batch
from vocable.codec.stream import Stream
from vocable.codec.tokens import Decoded, Encoded, TokensError

#: Attributes of the official package's model, and their equivalents here (docs/how-to/official.md).
_OFFICIAL_NAMES = {
    "n_q": "num_quantizers",
    "downsample_rate": "hop_length",
    "forward_feature": "embed(encode(waveform).codes)",
}


class SpeechTokenizer(CodecNetwork, Codec):
    """A neural speech codec whose first code of each frame represents the content (arXiv 2308.16692).

    `layers` is always a slice of the K quantizer layers: slice(0, 1) is RVQ-1, None means all layers.
    """

    def __getattr__(self, name: str) -> Any:
        if name in _OFFICIAL_NAMES:
            raise AttributeError(f"{name} of the official package is {_OFFICIAL_NAMES[name]} here")
        return super().__getattr__(name)

    # ---- load and save -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        parts: Parts = "all",
        weight_norm: bool = False,
        recurrence: Recurrence = "float32",
        compile: bool = False,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> SpeechTokenizer:
        """Load the embedded model (None or "fast"), a folder, or a hub id, in eval mode.

        name: a folder written by `save_pretrained`, or a folder with a checkpoint of the official package (a folder
        named fast is "./fast"); on the hub, "owner/name" or "owner/name/subfolder". parts: "encoder" or "decoder" loads
        that part and the quantizer only. weight_norm: True keeps the weight norm of a `paper` codec, for training;
        False folds it into the weights. recurrence: "bfloat16" rounds the weights of the recurrent layers, which is
        faster on a CPU and changes some codes (benchmarks/README.md). compile: torch.compile encoder and decoder, which
        takes a minute at the first calls and needs a C++ compiler. revision: a branch, tag or commit of the hub's
        repository. cache_dir: the folder of downloads (None: the hub's own cache). local_files_only: download nothing.
        Raises CheckpointError if there is no such model, or its files are not a codec of this version; ValueError for
        an unusable device or option.
        """
        if recurrence not in get_args(Recurrence):
            raise ValueError(f"recurrence is {', '.join(get_args(Recurrence))}, not {recurrence!r}")
        if recurrence != "float32" and (torch.device(device).type, dtype) != ("cpu", torch.float32):
            raise ValueError(f"recurrence {recurrence} is for float32 models on the CPU: elsewhere give only a dtype")
        source = checkpoint.locate(name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        model = cls.from_checkpoint(checkpoint.read(source), parts, weight_norm)
        try:
            model = model.to(device=device, dtype=dtype).eval()
        except (RuntimeError, AssertionError) as error:  # torch's errors for a device that does not exist
            raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        if recurrence != "float32":
            ids = model.current_ids()
            reduce_recurrence(model.requires_grad_(False))
            model.keep_ids(ids)  # rounding for speed does not change the ids
            model.recurrence = recurrence
        if compile:
            for part in (model.encoder, model.decoder):
                if isinstance(part, Staged):
                    part.compile_stages()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors to `folder`. dtype float16 halves the file and changes the id.

        A codec with folded weight norm is written folded, so its id differs from that of the files that it was loaded
        from. Raises ValueError for a partly loaded codec.
        """
        if self.parts != "all":
            raise ValueError(f"only the {self.parts} of this codec was loaded: load all parts to save it")
        if self.recurrence != "float32":
            raise ValueError(f"the recurrent layers were rounded to {self.recurrence}: load them in float32 to save it")
        tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in self.state_dict().items()}
        checkpoint.write(folder, self.config, tensors)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype = torch.float32,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "Upload a vocable codec",
    ) -> str:
        """Upload the files of `save_pretrained` to a repository of the Hugging Face hub; return the commit's URL.

        repo_id: "owner/name"; the repository is created if it does not exist. private: whether a new repository is
        private. revision: the branch. token: an access token (None: that of `hf auth login`). Errors are those of
        huggingface_hub.
        """
        import huggingface_hub

        api = huggingface_hub.HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, revision=revision, commit_message=commit_message
            )
        return str(commit.commit_url)

    # ---- properties ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The config's name, the first part of the id."""
        return self.config.name

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.config.hop_length

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes of each layer."""
        return (self.config.codebook_size,) * self.config.num_quantizers

    @property
    def dimension(self) -> int:
        """Channels D of the latents."""
        return self.config.dimension

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.quantizer.codebooks.device

    def part_sizes(self) -> dict[str, int]:
        """Return the number of parameters of encoder, decoder and codebooks."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
        return sizes | {"codebooks": self.quantizer.codebooks.numel()}

    @property
    def delay(self) -> int | None:
        """Delay of a stream in samples, from input to decoded speech; None for a codec that needs the whole clip."""
        return self.config.delay

    # ---- encode and decode ---------------------------------------------------------------------------------------

    @inference
    def encode(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Encoded:
        """Encode speech. The codes of a clip do not depend on its batch.

        waveform: float [L], [B, L], [B, 1, L] or a list of [L]. sample_rate: of the waveform, in Hz (None: the
        codec's); another rate is resampled. num_samples: valid samples of each row of a padded [B, L]. layers: the
        layers whose codes are returned; layers above them are not computed. Raises AudioError for empty, non-finite or
        non-float input, and for a shape that is probably [L, channels].
        """
        start, stop = layer_range(layers, self.num_quantizers)
        batch, lengths, gain = self._batch(waveform, sample_rate, num_samples)
        frames = -(-lengths // self.hop_length)
        latents = run_batch(self.staged("encoder"), batch, lengths)
        valid = torch.arange(latents.shape[1], device="cpu") < frames[:, None]
        codes = frames.new_zeros(len(frames), stop - start, latents.shape[1], device=self.device)
        # Only valid frames are searched; codes after a clip's end are 0.
        codes.transpose(1, 2)[valid] = self.quantizer.encode(latents[valid][None], stop)[0, start:].T
        return self._encoded(codes, frames, lengths, slice(start, stop), gain)

    @inference
    def decode(
        self,
        codes: Encoded | Tensor | np.ndarray,
        *,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
        restore_level: bool = True,
    ) -> Decoded:
        """Decode codes to speech.

        codes: an `Encoded`, or int [B, K', T] with one row for each layer of `layers` (None: all K). layers: for an
        `Encoded`, the layers to decode among those that it holds. num_samples: samples of each clip (None: those of the
        `Encoded`, or T whole frames). restore_level: divide by the gains of the `Encoded`, which restores the level of
        the input; otherwise the speech has the codec's level. Raises TokensError for codes of another codec, of the
        wrong shape, or out of range.
        """
        gain = None
        if isinstance(codes, Encoded):
            gain = codes.gain if restore_level else None
            num_samples = codes.num_samples if num_samples is None else num_samples
            codes, layers = self.select_layers(codes, layers)
        codes, start = self._checked(codes, layers)
        hop, (batch, _, frames) = self.hop_length, codes.shape
        lengths = lengths_of(num_samples, batch, frames * hop)
        check_fit(lengths, frames, hop)
        latents = self.quantizer.decode(codes, start)
        waveform = run_batch(self.staged("decoder"), latents, -(-lengths // hop))[:, : int(lengths.max())]
        if gain is not None:
            waveform = waveform / sample_gains(gain, hop)[:, : waveform.shape[1]].to(waveform)
        return Decoded(silence_after(waveform, lengths), lengths)

    @inference
    def encode_long(
        self,
        blocks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
        *,
        layers: slice | None = None,
        chunk_frames: int = CHUNK_FRAMES,
        gain: float | None = None,
    ) -> Encoded:
        """Encode one recording of any length in bounded memory, to the codes that `encode` returns.

        blocks: float [n] of any lengths at the codec's rate, or the whole recording as one array. chunk_frames: frames
        per chunk; more frames need more memory. gain: for a codec with a level, the factor that is applied to the
        recording; None measures the level first, so the blocks are read twice. Raises AudioError for empty or
        non-finite input; ValueError for blocks that can be read only once but must be read twice, and for an invalid
        gain.
        """
        start, stop = layer_range(layers, self.num_quantizers)
        encoder, level, chunk = self.staged("encoder"), self.config.level, checked_chunk(chunk_frames)
        blocks = blocks_of(blocks)
        samples = 0

        def filtered() -> Iterator[Tensor]:
            nonlocal samples
            samples, past, high_pass = 0, None, HighPass(self.config.high_pass, self.sample_rate)
            for block in blocks:
                if not isinstance(block, (Tensor, np.ndarray)):
                    raise AudioError(f"a block of one recording is an array [n], not {type(block).__name__}")
                if 0 not in block.shape:
                    clips = as_clips(block, None)
                    if len(clips) != 1:
                        raise AudioError(f"a block of one recording is [n], not {list(block.shape)}")
                    samples += len(clips[0])
                    clip = clips[0].to(self.device)
                    clip, past = high_pass.step(clip, high_pass.start(clip) if past is None else past)
                    yield clip

        self._check_gain(gain)
        if gain is None and level is not None:
            if isinstance(blocks, Iterator):
                raise ValueError(
                    "this codec reads a recording twice, first to measure its level, and these blocks can be read only "
                    "once: give an array, a list or audio.read_blocks, or give gain="
                )
            gain = level_gain(filtered(), level, self.sample_rate)
        blocks_in = filtered() if gain is None else (block * gain for block in filtered())
        chunks = run_staged(encoder, blocks_in, chunk)
        rows = [self.quantizer.encode(latents[None], stop)[:, start:] for latents in chunks]
        if not rows:
            raise AudioError("no samples: give at least one")
        codes, lengths = torch.cat(rows, 2), torch.tensor([samples], device="cpu")
        frames = torch.tensor([codes.shape[2]], device="cpu")
        gains = None if gain is None else torch.tensor([gain], device="cpu", dtype=torch.float32)
        return self._encoded(codes, frames, lengths, slice(start, stop), gains)

    @inference
    def decode_long(
        self,
        encoded: Encoded,
        *,
        layers: slice | None = None,
        chunk_frames: int = CHUNK_FRAMES,
        restore_level: bool = True,
    ) -> Iterator[Tensor]:
        """Decode one clip of any length in bounded memory, to the speech that `decode` returns; yields float32 [n].

        Raises TokensError at the call for codes of another codec, or of several clips.
        """
        if not isinstance(encoded, Encoded):
            raise TokensError(f"decode_long takes an Encoded, not {type(encoded).__name__}")
        if len(encoded) != 1:
            raise TokensError(f"decode_long takes one clip, not {len(encoded)}: decode each item of `clips()`")
        codes, start = self._checked(*self.select_layers(encoded, layers))
        samples, chunk = int(encoded.num_samples), checked_chunk(chunk_frames)
        check_fit(encoded.num_samples, codes.shape[2], self.hop_length)
        codes = codes[:, :, : self.num_frames(samples)]
        latents = (self.quantizer.decode(part, start)[0] for part in torch.split(codes, chunk, 2))
        gain = encoded.gain if restore_level else None
        return self._trimmed(run_staged(self.staged("decoder"), latents, chunk), samples, gain)

    def _trimmed(self, blocks: Iterator[Tensor], samples: int, gain: Tensor | None) -> Iterator[Tensor]:
        """Yield the first `samples` samples of the decoder's blocks, divided by the gain."""
        done, hop = 0, self.hop_length
        while done < samples:
            with torch.no_grad(), no_autocast(self.device):  # these modes must not be set in the caller's code
                block = next(blocks)[: samples - done]
                if gain is not None:
                    frames = slice(done // hop, -(-(done + len(block)) // hop))
                    block = block / sample_gains(gain, hop, frames)[0, : len(block)].to(block)
                done += len(block)
            yield block

    @inference
    def stream(self, *, batch: int = 1, layers: slice | None = None, gain: float | None = None) -> Stream:
        """Return a stream that encodes and decodes `batch` recordings while they come, in blocks of any length.

        layers: the layers whose codes are returned. gain: for a codec with a level, the factor that is applied to the
        recordings; None follows the level of their speech so far. Raises ValueError for a codec that needs the whole
        clip, and for an invalid batch or gain.
        """
        if self.delay is None:
            raise ValueError(
                f"{self.name} cannot stream, because it uses the whole clip on both sides of a frame: encode_long "
                "encodes recordings of any length"
            )
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self._check_gain(gain)
        return Stream(self, FrameSteps(self, gain), batch, layers)

    @inference
    def latents(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Return the encoder's output before quantization: float32 [B, D, T]. Arguments are those of `encode`."""
        batch, lengths, _ = self._batch(waveform, sample_rate, num_samples)
        return run_batch(self.staged("encoder"), batch, lengths).transpose(1, 2)

    @inference
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """Sum the codebook entries of codes over the layers: int [B, K', T] of `layers` -> float32 [B, D, T]."""
        codes, start = self._checked(codes, layers)
        return self.quantizer.decode(codes, start).transpose(1, 2)

    # ---- checks --------------------------------------------------------------------------------------------------

    def _batch(
        self, waveform: Waveforms, sample_rate: int | None, num_samples: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return input as a padded batch float32 [B, L], num_samples int64 [B], and gains float32 [B], or None for a
        codec without a level. The last two are on the CPU."""
        clips = at_rate(as_clips(waveform, num_samples), sample_rate, self.sample_rate)
        lengths = torch.tensor([len(c) for c in clips], device="cpu")
        batch = torch.zeros(len(clips), int(lengths.max()), dtype=torch.float32, device=self.device)
        gains = torch.ones(len(clips), dtype=torch.float32, device="cpu")
        for i, clip in enumerate(clips):
            batch[i, : len(clip)], gains[i] = condition(clip, self.config)
        return batch, lengths, None if self.config.level is None else gains

    def _check_gain(self, gain: float | None) -> None:
        if gain is not None and (self.config.level is None or not 0 < gain < math.inf):
            raise ValueError(f"gain is a positive number, for a codec with a level only, not {gain!r}")

    def _encoded(
        self, codes: Tensor, num_frames: Tensor, num_samples: Tensor, layers: slice, gain: Tensor | None
    ) -> Encoded:
        return Encoded(codes, num_frames, num_samples, layers, self.token_id, self.sample_rate, self.frame_rate, gain)
