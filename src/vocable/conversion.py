"""One-shot voice conversion: what is said from one clip, how it sounds from another. RVQ-1 is the source's.

By swapping layers, as SpeechTokenizer has it (arXiv 2308.16692, section 4.6): the layers above are the reference's, in
its own order. Nothing aligns them with what is said, so with many of them words are lost.

By the non-autoregressive model of speech (`lm/nar.py`): it writes the layers above, from the source's RVQ-1, its text
if that is known, and with the reference as its prompt.
"""

from __future__ import annotations

import os

import torch

from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms, layer_range
from vocable.codec.load import load_codec
from vocable.codec.tokens import Decoded, Encoded
from vocable.lm.model import Models, load_models
from vocable.lm.nar import GUIDANCE
from vocable.lm.voice import SHORTEST, prepare_voice, voice_codes


def swap_layers(
    tok: Codec,
    source: Waveforms,
    reference: Waveforms,
    sample_rate: int | None = None,
    reference_rate: int | None = None,
    layers: slice | None = None,
) -> Decoded:
    """Speech with the source's content, as long as the source, and the reference's voice.

    source, reference: one clip each, float [L]. sample_rate, reference_rate: theirs in Hz, where they are not the
    codec's. layers: those that the reference gives, a slice that starts above 0 (default: all above RVQ-1); those below
    are the source's, and those above are left out. A reference that is shorter than the source is repeated, a longer
    one cut. Raises ValueError for other layers or a reference under a second, AudioError for audio that is none.
    """
    start, stop = layer_range(slice(1, None) if layers is None else layers, tok.num_quantizers)
    if start == 0:
        raise ValueError(f"the reference gives layers above RVQ-1, slice(1, {stop}) say, not {layers}")
    content = tok.encode(source, sample_rate=sample_rate, layers=slice(0, start))
    voice = tok.encode(reference, sample_rate=reference_rate, layers=slice(0, stop))
    if len(content.num_frames) != 1 or len(voice.num_frames) != 1:
        raise ValueError("give one source and one reference")
    have = int(voice.num_frames[0])
    if have < SHORTEST * tok.frame_rate:
        raise ValueError(f"the reference lasts {have / tok.frame_rate:.1f} s: give a second or more")
    frames = torch.arange(content.codes.shape[2], device=voice.codes.device) % have
    codes = torch.cat([content.codes, voice.codes[:, start:, frames]], 1)
    return tok.decode(codes, num_samples=content.num_samples, layers=slice(0, stop))


class VoiceConverter:
    """The layers above a source's RVQ-1, written by the NAR of language models, in a voice."""

    def __init__(self, codec: Codec, models: Models) -> None:
        if models.nar is None:
            raise ValueError("these models have no NAR: train one, or convert by swapping layers")
        self.codec, self.models, self.nar = codec, models, models.nar.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        codec: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> VoiceConverter:
        """As `USLM.from_pretrained`."""
        loaded = load_codec(codec, device=device)
        return cls(loaded, load_models(name, loaded).to(device))

    def prepare_voice(self, waveform: Waveforms, sample_rate: int | None = None) -> Encoded:
        """`voice.prepare_voice` with this codec."""
        return prepare_voice(self.codec, waveform, sample_rate)

    def convert(
        self,
        source: Waveforms,
        voice: Encoded,
        sample_rate: int | None = None,
        *,
        text: str | None = None,
        language: str | None = None,
        guidance: float = GUIDANCE,
    ) -> Decoded:
        """Speech with the source's content, as long as the source, in a voice.

        source: one clip, float [L]; voice: of `prepare_voice`. text: what the source says, where it is known;
        language: the text's; guidance: by the text, as in `NAR.fill`. Raises ValueError for a text that the models
        cannot read or find in the clip, TokensError for a voice of another codec, AudioError for audio that is none.
        """
        encoded = self.codec.encode(source, sample_rate=sample_rate)
        if len(encoded) != 1:
            raise ValueError("give one source")
        codes = encoded.codes[0]
        symbols = None if text is None else self.models.align(self.codec, codes, text, language)
        filled = self.nar.fill(codes[0], voice_codes(self.codec, voice), symbols, guidance=guidance)
        return self.codec.decode(filled[None], num_samples=encoded.num_samples)
