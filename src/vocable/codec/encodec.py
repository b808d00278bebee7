"""EnCodec (arXiv 2210.13438) behind SpeechTokenizer's front door: the tokens of VALL-E, by the name `encodec:ID`.

The model comes from a folder or the hub through transformers, and its licence is its authors'. Eight layers are used,
as in VALL-E (arXiv 2301.02111): 6 kbit/s. Clips are worked on one by one, which its padding asks for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.clips import Waveforms, as_clips, at_rate, check_fit, checked_codes, checked_lengths, layer_range
from vocable.codec.layers import Recurrence, inference
from vocable.codec.long import blocks_of
from vocable.codec.model import Decoded, SpeechTokenizer
from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.codec.tokens import Encoded, TokensError
from vocable.extras import need

KIND = "encodec:"
LAYERS = 8
LONGEST = 300  #: seconds of a recording


class Encodec:
    """What language models of speech, and `vocable tokenize`, ask of a codec; shapes as in SpeechTokenizer."""

    recurrence: Recurrence = "float32"

    def __init__(self, name: str, device: str = "cpu") -> None:
        """name: a folder or a hub id. Raises CheckpointError where it has no mono EnCodec."""
        transformers = need("transformers", "train")
        try:
            if transformers.AutoConfig.from_pretrained(name).model_type != "encodec":
                raise ValueError("another model")
            self.model, found = transformers.EncodecModel.from_pretrained(name, output_loading_info=True)
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
        self.num_quantizers, self.codebook_size, _ = books.shape
        self.sample_rate: int = config.sampling_rate
        self.hop_length: int = config.hop_length
        self.frame_rate = self.sample_rate / self.hop_length
        digest = hashlib.sha256()
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
        #: Its token id too: nobody trains its decoder further.
        self.id = self.token_id = f"encodec-{digest.hexdigest()[:10]}"

    @property
    def device(self) -> torch.device:
        return self.quantizer.codebooks.device

    @inference
    def encode(self, waveform: Waveforms, sample_rate: int | None = None, *, layers: slice | None = None) -> Encoded:
        """As `SpeechTokenizer.encode`."""
        start, stop = layer_range(layers, self.num_quantizers)
        clips = at_rate(as_clips(waveform, None), sample_rate, self.sample_rate)
        lengths = torch.tensor([len(clip) for clip in clips], device="cpu")
        frames = -(-lengths // self.hop_length)
        codes = torch.zeros(len(clips), stop - start, int(frames.max()), dtype=torch.int64, device=self.device)
        for row, clip, count in zip(codes, clips, frames.tolist(), strict=True):
            latents = self.model.encoder(clip.to(self.device)[None, None]).transpose(1, 2)
            row[:, :count] = self.quantizer.encode(latents, stop)[0, start:]
        return Encoded(codes, frames, lengths, slice(start, stop), self.token_id, self.sample_rate, self.frame_rate)

    def encode_long(self, waveform: Tensor | np.ndarray, layers: slice | None = None) -> Encoded:
        """As `encode`, whole, one recording [L]: AudioError for one over five minutes."""
        samples = sum(len(block) for block in blocks_of(waveform))
        if samples > LONGEST * self.sample_rate:
            raise AudioError(f"longer than {LONGEST} s, which EnCodec would take in one piece: cut it")
        return self.encode(waveform, layers=layers)

    @inference
    def decode(
        self,
        codes: Encoded | Tensor | np.ndarray,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Decoded:
        """As `SpeechTokenizer.decode`; of an `Encoded`, all the layers that it holds, and `layers` is left out."""
        if isinstance(codes, Encoded):
            self.check_token_id(codes.token_id, "codes")
            if layers not in (None, codes.layers):
                raise TokensError("an Encoded is decoded with all the layers that it holds: leave out layers")
            num_samples = codes.num_samples if num_samples is None else num_samples
            layers, codes = codes.layers, codes.codes
        codes, first = self._checked(codes, layers)
        batch, _, width = codes.shape
        whole = torch.full((batch,), width * self.hop_length, device="cpu")
        lengths = whole if num_samples is None else checked_lengths(num_samples, batch)
        check_fit(lengths, width, self.hop_length)
        waveform = torch.zeros(batch, int(lengths.max()), device=self.device)
        for row, clip, length in zip(waveform, codes, lengths.tolist(), strict=True):
            frames = -(-length // self.hop_length)
            latents = self.quantizer.decode(clip[None, :, :frames], first).transpose(1, 2)
            row[:length] = self.model.decoder(latents)[0, 0, :length]
        return Decoded(waveform, lengths)

    @inference
    def embed(self, codes: Tensor | np.ndarray, layers: slice | None = None) -> Tensor:
        """The sum of the codebook vectors: int [B, K', T] -> float32 [B, D, T]."""
        codes, first = self._checked(codes, layers)
        return self.quantizer.decode(codes, first).transpose(1, 2)

    def _checked(self, codes: Tensor | np.ndarray, layers: slice | None) -> tuple[Tensor, int]:
        return checked_codes(codes, layers, self.num_quantizers, self.codebook_size, self.device)

    def check_token_id(self, token_id: str, what: str) -> None:
        """As `SpeechTokenizer.check_token_id`."""
        if token_id != self.id:
            raise TokensError(f"{what} of {token_id}, but those of this codec are {self.id}: load that one")

    def bitrate(self, layers: slice | None = None) -> float:
        """Bits a second of the codes of these layers, without entropy coding."""
        start, stop = layer_range(layers, self.num_quantizers)
        return float((stop - start) * self.frame_rate * np.log2(self.codebook_size))


#: What language models can be trained on.
Codec = SpeechTokenizer | Encodec


def load_codec(name: str | os.PathLike[str] | None, device: str = "cpu", **options: Any) -> Codec:
    """`SpeechTokenizer.from_pretrained`, with its options, or by "encodec:ID" an Encodec, whole and as it is."""
    if not str(name).startswith(KIND):
        return SpeechTokenizer.from_pretrained(name, device, **options)
    asked = [key for key, value in options.items() if key != "parts" and value not in (None, False, "float32")]
    if asked:
        raise ValueError(f"EnCodec runs as it is: leave out {' and '.join(asked)}")
    return Encodec(str(name).removeprefix(KIND), device)
