"""EnCodec (arXiv 2210.13438) as a `Codec`, named `encodec:ID`: the tokens of VALL-E.

transformers loads the model from a folder or the hub; the licence of the model applies. Eight layers are used, as in
VALL-E (arXiv 2301.02111): 6 kbit/s. Clips are encoded one by one, because padding would change their codes.
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
MOST_SECONDS = 300  #: longest recording that `encode_long` accepts, in seconds


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
        """Load a model. name: a folder or a hub id. The other arguments are those of `SpeechTokenizer.from_pretrained`.

        Raises CheckpointError if there is no EnCodec for mono recordings, ValueError for an unusable device.
        """
        transformers = need("transformers", "train")
        try:
            hub = {"revision": revision or "main", "cache_dir": cache_dir, "local_files_only": local_files_only}
            if transformers.AutoConfig.from_pretrained(name, **hub).model_type != "encodec":
                raise ValueError("not EnCodec")
            self.model, found = transformers.EncodecModel.from_pretrained(name, output_loading_info=True, **hub)
            if found["missing_keys"]:  # transformers fills them with random values
                raise ValueError("some weights are missing")
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{name}: no EnCodec model in this folder or on the hub") from error
        try:
            self.model.eval().to(device)
        except (RuntimeError, AssertionError) as error:  # torch's errors for a device that does not exist
            raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        config = self.model.config
        if config.audio_channels != 1 or config.normalize:
            raise CheckpointError(f"{name}: this EnCodec is not for mono recordings: use facebook/encodec_24khz")
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
        """The same as `id`."""
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
        """The device that the weights are on."""
        return self.quantizer.codebooks.device

    def part_sizes(self) -> dict[str, int]:
        """Return the number of parameters of encoder, decoder and codebooks."""
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
        """Encode speech, as `Codec.encode` does."""
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
        """Encode one recording, at most MOST_SECONDS long, at once. Raises AudioError for a longer one."""
        pieces, samples = [], 0
        for block in blocks_of(blocks):
            pieces.append(torch.as_tensor(block))
            samples += len(block)
            if samples > MOST_SECONDS * self.sample_rate:
                raise AudioError(f"longer than {MOST_SECONDS} s, and EnCodec encodes a recording at once: cut it")
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
        """Decode codes, as `Codec.decode` does. EnCodec has no gains, so `restore_level` has no effect."""
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
        """Decode one clip at once; yields one block, float32 [n]."""
        if not isinstance(encoded, Encoded) or len(encoded) != 1:
            raise TokensError("decode_long takes an Encoded of one clip: decode each item of `clips()`")
        return iter(self.decode(encoded, layers=layers).clips())

    @inference
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """Sum the codebook entries of codes over the layers: int [B, K', T] of `layers` -> float32 [B, D, T]."""
        codes, first = self._checked(codes, layers)
        return self.quantizer.decode(codes, first).transpose(1, 2)
