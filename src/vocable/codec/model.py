"""SpeechTokenizer: speech to codes and codes to speech."""

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
from vocable.codec.layers import Recurrence, inference, no_autocast, reduce_recurrence
from vocable.codec.level import HighPass, condition, level_gain
from vocable.codec.long import CHUNK_FRAMES, blocks_of, run_staged
from vocable.codec.network import CodecNetwork, Parts
from vocable.codec.staged import Staged, run_batch
from vocable.codec.tokens import Decoded, Encoded, TokensError

#: What the official package's model calls differently (docs/how-to/official.md).
_OFFICIAL_NAMES = {
    "n_q": "num_quantizers",
    "downsample_rate": "hop_length",
    "forward_feature": "embed(encode(waveform).codes)",
}


class SpeechTokenizer(CodecNetwork, Codec):
    """A neural speech codec whose first code of each frame carries content (arXiv 2308.16692).

    `layers` is a slice of the K quantizer layers everywhere: slice(0, 1) is RVQ-1, None is all of them.
    """

    def __getattr__(self, name: str) -> Any:
        if name in _OFFICIAL_NAMES:
            raise AttributeError(f"{name} of the official package is {_OFFICIAL_NAMES[name]} here")
        return super().__getattr__(name)

    # ---- where it comes from -------------------------------------------------------------------------------------

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

        name: a folder written by `save_pretrained`, or one with a checkpoint of the official package (a folder called
        fast is "./fast"); on the hub, "owner/name" or "owner/name/subfolder". parts: "encoder" leaves the decoder
        unbuilt, "decoder" the encoder.
        weight_norm: keep the weight norm of a `paper` codec, for training; else it is folded into the weights.
        recurrence: "bfloat16" rounds the weights of the recurrent layers, for a CPU that they keep waiting; some codes
        differ (benchmarks/README.md says how many). compile: torch.compile encoder and decoder, a minute's work at the
        first calls; it needs a C++ compiler. revision: a branch, tag or commit of the hub's repository. cache_dir:
        where downloads are kept, if not in the hub's own cache. local_files_only: download nothing.
        Raises CheckpointError when there is no such model, or its files are not a codec of this version; ValueError for
        a device or an option that cannot be used.
        """
        if recurrence not in get_args(Recurrence):
            raise ValueError(f"recurrence is {', '.join(get_args(Recurrence))}, not {recurrence!r}")
        if recurrence != "float32" and (torch.device(device).type, dtype) != ("cpu", torch.float32):
            raise ValueError(f"recurrence {recurrence} is for float32 models on the CPU: give a dtype alone elsewhere")
        source = checkpoint.locate(name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        model = cls.from_checkpoint(checkpoint.read(source), parts, weight_norm)
        try:
            model = model.to(device=device, dtype=dtype).eval()
        except (RuntimeError, AssertionError) as error:  # what torch says of a device it has not
            raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        if recurrence != "float32":
            ids = model.current_ids()
            reduce_recurrence(model.requires_grad_(False))
            model.keep_ids(ids)  # a way to run the same codec
            model.recurrence = recurrence
        if compile:
            for part in (model.encoder, model.decoder):
                if isinstance(part, Staged):
                    part.compile_stages()
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors to `folder`; dtype float16 halves the file (and changes the id).

        A codec whose weight norm is folded is written as it is, folded: its weights are other numbers than those that
        it was loaded from, and so is its id. Raises ValueError for a codec that was loaded in parts.
        """
        if self.parts != "all":
            raise ValueError(f"this codec holds its {self.parts} alone: load it whole to save it")
        if self.recurrence != "float32":
            raise ValueError(f"this codec's recurrence was made {self.recurrence}: load it as it is to save it")
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
        """Write the files of `save_pretrained` to a repository of the Hugging Face hub; return the commit's address.

        repo_id: "owner/name", made if missing, `private` or not. revision: the branch. token: None for the one of
        `hf auth login`. Raises what huggingface_hub raises.
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

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The config's name, with which the id begins."""
        return self.config.name

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
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
        """The device that the codec runs on."""
        return self.quantizer.codebooks.device

    def part_sizes(self) -> dict[str, int]:
        """Return the number of values in encoder, decoder and codebooks."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
        return sizes | {"codebooks": self.quantizer.codebooks.numel()}

    @property
    def delay(self) -> int | None:
        """Samples that decoded speech lags behind its input in a stream; None for a codec that needs the whole clip."""
        return self.config.delay

    # ---- what it does --------------------------------------------------------------------------------------------

    @inference
    def encode(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Encoded:
        """Speech to codes. A clip's codes are the same alone and in any batch.

        waveform: float [L], [B, L], [B, 1, L] or a list of [L]. sample_rate: its rate in Hz if it is not the model's;
        it is then resampled. num_samples: valid samples of each row of a padded [B, L]. layers: which rows to return;
        layers above the last one cost nothing. Raises AudioError for empty, non-finite or non-float input, and for what
        looks like [L, channels].
        """
        start, stop = layer_range(layers, self.num_quantizers)
        batch, lengths, gain = self._batch(waveform, sample_rate, num_samples)
        frames = -(-lengths // self.hop_length)
        latents = run_batch(self.staged("encoder"), batch, lengths)
        valid = torch.arange(latents.shape[1], device="cpu") < frames[:, None]
        codes = frames.new_zeros(len(frames), stop - start, latents.shape[1], device=self.device)
        # 0 behind a clip's end, which costs no search.
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
        """Codes to speech.

        codes: what `encode` returned, or int [B, K', T] with as many rows as `layers` selects (None: all K). For an
        `Encoded`, `layers` chooses among the rows that it holds. num_samples: the length of each clip; without it, T
        whole frames. restore_level: bring the clips of an `Encoded` that has gains back to the level that they came
        with; without gains, a codec that has a level speaks at that. Raises TokensError for codes of another codec, of
        the wrong shape, or out of range.
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
            waveform = waveform / gain.to(waveform)[:, None]
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
        """One recording of any length, in blocks, to the codes that `encode` gives for the whole, in bounded memory.

        blocks: float [n] at the codec's rate, of any lengths (or the whole as one). chunk_frames: what is worked on at
        once; more takes more memory. gain: by which the recording is multiplied, for a codec that has a level; None
        measures it first, and then goes through the blocks twice. Raises AudioError for input that is empty or not
        finite, ValueError for blocks that cannot be gone through twice where they must, and for a gain that this codec
        cannot use.
        """
        start, stop = layer_range(layers, self.num_quantizers)
        encoder, level, chunk = self.staged("encoder"), self.config.level, checked_chunk(chunk_frames)
        blocks = blocks_of(blocks)
        samples = 0

        def filtered() -> Iterator[Tensor]:
            nonlocal samples
            samples, high_pass = 0, HighPass(self.config.high_pass, self.sample_rate)
            for block in blocks:
                if not isinstance(block, (Tensor, np.ndarray)):
                    raise AudioError(f"a block of one recording is an array [n], not {type(block).__name__}")
                if 0 not in block.shape:
                    clips = as_clips(block, None)
                    if len(clips) != 1:
                        raise AudioError(f"a block of one recording is [n], not {list(block.shape)}")
                    samples += len(clips[0])
                    yield high_pass(clips[0].to(self.device))

        if gain is not None and (level is None or not 0 < gain < math.inf):
            raise ValueError(f"gain is a positive number, and for a codec that has a level, not {gain!r}")
        if gain is None and level is not None:
            if isinstance(blocks, Iterator):
                raise ValueError(
                    "this codec measures a recording before it encodes it, and these blocks can be read only once: "
                    "give an array, a list, what can be iterated again (audio.read_blocks), or gain="
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
        """The speech of one clip of any length, in blocks: float32 [n], which together are what `decode` gives.

        Raises TokensError at the call for codes of another codec, or of several clips.
        """
        if not isinstance(encoded, Encoded):
            raise TokensError(f"decode_long takes an Encoded, not {type(encoded).__name__}")
        if len(encoded) != 1:
            raise TokensError(f"{len(encoded)} clips: decode them one by one, as `clips()` gives them")
        codes, start = self._checked(*self.select_layers(encoded, layers))
        samples, chunk = int(encoded.num_samples), checked_chunk(chunk_frames)
        check_fit(encoded.num_samples, codes.shape[2], self.hop_length)
        codes = codes[:, :, : self.num_frames(samples)]
        latents = (self.quantizer.decode(part, start)[0] for part in torch.split(codes, chunk, 2))
        gain = encoded.gain if restore_level else None
        return self._spoken(run_staged(self.staged("decoder"), latents, chunk), samples, gain)

    def _spoken(self, blocks: Iterator[Tensor], samples: int, gain: Tensor | None) -> Iterator[Tensor]:
        """The first `samples` samples of the decoder's blocks, divided by the gain."""
        while samples:
            with torch.no_grad(), no_autocast(self.device):  # not while the caller has the block
                block = next(blocks)[:samples]
                samples -= len(block)
                block = block if gain is None else block / gain.to(block)
            yield block

    @inference
    def latents(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """The encoder's output before quantization: float32 [B, D, T]."""
        batch, lengths, _ = self._batch(waveform, sample_rate, num_samples)
        return run_batch(self.staged("encoder"), batch, lengths).transpose(1, 2)

    @inference
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """The sum of the codebook vectors of `codes`: int [B, K', T] -> float32 [B, D, T]."""
        codes, start = self._checked(codes, layers)
        return self.quantizer.decode(codes, start).transpose(1, 2)

    # ---- checks --------------------------------------------------------------------------------------------------

    def _batch(
        self, waveform: Waveforms, sample_rate: int | None, num_samples: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Any accepted input as the encoder takes it: float32 [B, L], zero behind each clip's end.

        Also num_samples int64 [B] and, for a codec that has a level, gains float32 [B], both on the CPU.
        """
        clips = at_rate(as_clips(waveform, num_samples), sample_rate, self.sample_rate)
        lengths = torch.tensor([len(c) for c in clips], device="cpu")
        batch = torch.zeros(len(clips), int(lengths.max()), dtype=torch.float32, device=self.device)
        gains = torch.ones(len(clips), dtype=torch.float32, device="cpu")
        for i, clip in enumerate(clips):
            batch[i, : len(clip)], gains[i] = condition(clip, self.config)
        return batch, lengths, None if self.config.level is None else gains

    def _encoded(
        self, codes: Tensor, num_frames: Tensor, num_samples: Tensor, layers: slice, gain: Tensor | None
    ) -> Encoded:
        return Encoded(codes, num_frames, num_samples, layers, self.token_id, self.sample_rate, self.frame_rate, gain)
