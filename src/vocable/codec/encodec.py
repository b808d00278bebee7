"""EnCodec (arXiv 2210.13438) as a `Codec`, named `encodec:ID`: the tokens of VALL-E.

The model comes from a folder or the hub through transformers, and its licence is its authors'. Eight layers are used,
as in VALL-E (arXiv 2301.02111): 6 kbit/s. Clips are processed one by one, because the model pads batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.base import Codec
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.clips import Waveforms, as_clips, at_rate, check_fit, layer_range, lengths_of
from vocable.codec.identity import weights_digest
from vocable.codec.layers import inference
from vocable.codec.long import blocks_of
from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.codec.tokens import Decoded, Encoded, TokensError
from vocable.extras import need

LAYERS = 8
LONGEST = 300  #: seconds of a recording


class Encodec(Codec):
    """EnCodec as a `Codec`."""

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> None:
        """Load EnCodec. name: a folder or a hub id; revision, cache_dir, local_files_only: as in
        `SpeechTokenizer.from_pretrained`. Raises CheckpointError where there is no mono EnCodec."""
        transformers = need("transformers", "train")
        try:
            hub = {"revision": revision or "main", "cache_dir": cache_dir, "local_files_only": local_files_only}
            if transformers.AutoConfig.from_pretrained(name, **hub).model_type != "encodec":
                raise ValueError("another model")
            self.model, found = transformers.EncodecModel.from_pretrained(name, output_loading_info=True, **hub)
            if found["missing_keys"]:  # transformers would make them up
                raise ValueError("some weights are missing")
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{name}: no EnCodec there, nor to be had from the hub") from error
        try:
            self.model.eval().to(device)
        except (RuntimeError, AssertionError) as error:  # what torch says of a device it has not
            raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        config = self.model.config
        if config.audio_channels != 1 or config.normalize:
            raise CheckpointError(f"{name}: this EnCodec is not of speech in mono: take facebook/encodec_24khz")
        layers = self.model.quantizer.layers[:LAYERS]
        books = torch.stack([layer.codebook.embed for layer in layers])
        self.quantizer = ResidualVectorQuantizer(*books.shape).to(device)
        self.quantizer.codebooks.copy_(books)
        self._id = f"encodec-{weights_digest(self.model.state_dict())}"

    @property
    def name(self) -> str:
        """`encodec`."""
        return "encodec"

    @property
    def id(self) -> str:
        """`encodec-` and a hash of all weights."""
        return self._id

    @property
    def token_id(self) -> str:
        """The id: nobody trains its decoder further."""
        return self._id

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.model.config.sampling_rate)

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return int(self.model.config.hop_length)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes of each layer."""
        layers, size, _ = self.quantizer.codebooks.shape
        return (size,) * layers

    @property
    def dimension(self) -> int:
        """Channels D of the latents."""
        return self.quantizer.codebooks.shape[2]

    @property
    def device(self) -> torch.device:
        """The device that the codec runs on."""
        return self.quantizer.codebooks.device

    def part_sizes(self) -> dict[str, int]:
        """Return the number of values in encoder, decoder and codebooks."""
        parts = {"encoder": self.model.encoder, "decoder": self.model.decoder}
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        return sizes | {"codebooks": self.quantizer.codebooks.numel()}

    @inference
    def encode(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Encoded:
        """Encode speech, as `Codec.encode`."""
        start, stop = layer_range(layers, self.num_quantizers)
        clips = at_rate(as_clips(waveform, num_samples), sample_rate, self.sample_rate)
        lengths = torch.tensor([len(clip) for clip in clips], device="cpu")
        frames = -(-lengths // self.hop_length)
        codes = torch.zeros(len(clips), stop - start, int(frames.max()), dtype=torch.int64, device=self.device)
        for row, clip, count in zip(codes, clips, frames.tolist(), strict=True):
            latents = self.model.encoder(clip.to(self.device)[None, None]).transpose(1, 2)
            row[:, :count] = self.quantizer.encode(latents, stop)[0, start:]
        return Encoded(codes, frames, lengths, slice(start, stop), self.token_id, self.sample_rate, self.frame_rate)

    def encode_long(
        self, blocks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray], *, layers: slice | None = None
    ) -> Encoded:
        """Encode one recording in one piece, at most LONGEST seconds. Raises AudioError for a longer one."""
        pieces, samples = [], 0
        for block in blocks_of(blocks):
            pieces.append(torch.as_tensor(block))
            samples += len(block)
            if samples > LONGEST * self.sample_rate:
                raise AudioError(f"longer than {LONGEST} s, which EnCodec would take in one piece: cut it")
        if not pieces:
            raise AudioError("no samples: give at least one")
        return self.encode(torch.cat(pieces), layers=layers)

    @inference
    def decode(
        self,
        codes: Encoded | Tensor | np.ndarray,
        *,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
        restore_level: bool = True,
    ) -> Decoded:
        """Decode an `Encoded` or codes, as `Codec.decode`. EnCodec has no gains, so `restore_level` changes nothing."""
        if isinstance(codes, Encoded):
            num_samples = codes.num_samples if num_samples is None else num_samples
            codes, layers = self.select_layers(codes, layers)
        codes, first = self._checked(codes, layers)
        batch, _, width = codes.shape
        lengths = lengths_of(num_samples, batch, width * self.hop_length)
        check_fit(lengths, width, self.hop_length)
        waveform = torch.zeros(batch, int(lengths.max()), device=self.device)
        for row, clip, length in zip(waveform, codes, lengths.tolist(), strict=True):
            frames = -(-length // self.hop_length)
            latents = self.quantizer.decode(clip[None, :, :frames], first).transpose(1, 2)
            row[:length] = self.model.decoder(latents)[0, 0, :length]
        return Decoded(waveform, lengths)

    def decode_long(
        self, encoded: Encoded, *, layers: slice | None = None, restore_level: bool = True
    ) -> Iterator[Tensor]:
        """Decode one clip in one piece; yields one block, float32 [n]."""
        if not isinstance(encoded, Encoded) or len(encoded) != 1:
            raise TokensError("decode_long takes an Encoded of one clip: `clips()` gives them one by one")
        return iter(self.decode(encoded, layers=layers).clips())

    @inference
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """Sum the codebook vectors of codes: int [B, K', T] of `layers` -> float32 [B, D, T]."""
        codes, first = self._checked(codes, layers)
        return self.quantizer.decode(codes, first).transpose(1, 2)
