"""One-shot voice conversion: the content of a source recording in the voice of a reference recording.

The result keeps the source's RVQ-1 codes, which hold the content. The layers above, which hold the voice, come from:

- `swap_layers`: the reference's own codes, frame by frame (SpeechTokenizer, arXiv 2308.16692, section 4.6). They are
  not aligned with the content, so the more layers are swapped, the more words are lost.
- `VoiceConverter`: the NAR of language models (`lm/nar.py`), which predicts them from the source's RVQ-1, the text of
  the source if it is known, and the reference as a prompt.
"""

from __future__ import annotations

import os

import torch

from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms, layer_range
from vocable.codec.load import load_codec
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Decoded, Encoded
from vocable.conversion_stream import AFTER, BEFORE, BLOCK, ConversionStream
from vocable.lm.cancelling import IsCancelled
from vocable.lm.model import LanguageModels, load_models
from vocable.lm.nar import GUIDANCE
from vocable.lm.voice import SHORTEST, prepare_voice, voice_codes


def swap_layers(
    codec: Codec,
    source: Waveforms,
    reference: Waveforms,
    *,
    sample_rate: int | None = None,
    reference_sample_rate: int | None = None,
    layers: slice | None = None,
) -> Decoded:
    """Convert a source to the voice of a reference, by the codes of both. The result is as long as the source.

    source, reference: one recording each, float [L]. sample_rate, reference_sample_rate: their rates in Hz (None: the
    codec's). layers: the layers of the reference's codes, from 1 or above (None: all above RVQ-1); the layers below
    are the source's, and the layers above are not decoded. A reference shorter than the source is repeated, a longer
    one is cut.

    Raises ValueError for other layers, a reference under a second, or several recordings; AudioError for an invalid
    waveform.
    """
    start, stop = layer_range(slice(1, None) if layers is None else layers, codec.num_quantizers)
    if start == 0:
        raise ValueError(f"the reference gives layers above RVQ-1, slice(1, {stop}) for example, not {layers}")
    content = codec.encode(source, sample_rate=sample_rate, layers=slice(0, start))
    voice = codec.encode(reference, sample_rate=reference_sample_rate, layers=slice(0, stop))
    if len(content) != 1 or len(voice) != 1:
        raise ValueError("give one source and one reference")
    frames = int(voice.num_frames[0])
    if frames < SHORTEST * codec.frame_rate:
        raise ValueError(f"the reference lasts {frames / codec.frame_rate:.1f} s: give a second or more")
    codes = swap_codes(content.codes, voice.codes, start)
    return codec.decode(codes, num_samples=content.num_samples, layers=slice(0, stop))


def swap_codes(content: torch.Tensor, voice: torch.Tensor, kept: int) -> torch.Tensor:
    """Return the first `kept` layers of `content` with the layers of `voice` above them, repeated or cut to fit.

    content: int64 [B, K, T], or its first `kept` layers. voice: int64 [B, K, U]. Returns int64 [B, K, T].
    """
    repeated = torch.arange(content.shape[2], device=voice.device) % voice.shape[2]
    return torch.cat([content[:, :kept], voice[:, kept:, repeated]], 1)


class VoiceConverter:
    """Voice conversion by the NAR of language models and the codec that they were trained for."""

    def __init__(self, codec: Codec, models: LanguageModels) -> None:
        if models.nar is None:
            raise ValueError("these models have no NAR: train one, or convert with swap_layers")
        self.codec, self.models, self.nar = codec, models, models.nar.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        *,
        codec: str | os.PathLike[str] | None = None,
        device: str = "cpu",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> VoiceConverter:
        """Load language models and their codec; arguments and errors are those of `USLM.from_pretrained`."""
        loaded = load_codec(codec, device=device, cache_dir=cache_dir, local_files_only=local_files_only)
        models = load_models(name, loaded, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls(loaded, models.to(device))

    def prepare_voice(self, waveform: Waveforms, *, sample_rate: int | None = None) -> Encoded:
        """Return the voice of a recording, as `vocable.lm.voice.prepare_voice` does, for this codec."""
        return prepare_voice(self.codec, waveform, sample_rate=sample_rate)

    def convert(
        self,
        source: Waveforms,
        reference: Waveforms | Encoded,
        *,
        sample_rate: int | None = None,
        reference_sample_rate: int | None = None,
        text: str | None = None,
        language: str | None = None,
        guidance: float = GUIDANCE,
        cancelled: IsCancelled | None = None,
    ) -> Decoded:
        """Convert a source to the voice of a reference. The result is as long as the source.

        source: one recording, float [L]. reference: one recording, or a voice from `prepare_voice`, which saves time if
        it is used again. sample_rate, reference_sample_rate: rates of the recordings in Hz (None: the codec's). text:
        text of the source, if it is known. language: language of the text, ISO 639-1 (None: that of the models'
        training texts). guidance: weight of voice and text, as in `NAR.fill`; it has no effect without a text.
        cancelled: asked between two steps of the model, as in `USLM.generate`; the call then raises `Cancelled`.

        Raises ValueError for a text that the models cannot read or that is too long for the clip, and for several
        sources; TokensError for a voice of another codec; AudioError for an invalid waveform. Warns if `language` is
        not that of the training texts.
        """
        if not isinstance(reference, Encoded):
            reference = self.prepare_voice(reference, sample_rate=reference_sample_rate)
        prompt = voice_codes(self.codec, reference)
        encoded = self.codec.encode(source, sample_rate=sample_rate)
        if len(encoded) != 1:
            raise ValueError("give one source")
        codes = encoded.codes[0]
        symbols = None
        if text is not None:
            symbols = self.models.align(self.codec, codes, text, language)
            self.models.warn_of_language(language)
        filled = self.nar.fill(codes[0], prompt, symbols, guidance=guidance, cancelled=cancelled)
        return self.codec.decode(filled[None], num_samples=encoded.num_samples)

    def stream(
        self, reference: Waveforms | Encoded, *, block: int = BLOCK, before: int = BEFORE, after: int = AFTER
    ) -> ConversionStream:
        """Return a stream that converts one recording to the voice of a reference while it comes.

        reference: a recording at the codec's rate, or a voice from `prepare_voice`. block: frames that the NAR writes
        at once. before, after: frames of context before a block, and of look-ahead after it. Raises ValueError for
        models of a codec that cannot stream, and for invalid numbers of frames; otherwise as `convert`.
        """
        if not isinstance(self.codec, SpeechTokenizer) or self.codec.delay is None:
            raise ValueError(
                f"{self.codec.name} cannot stream: load language models that are trained on a causal codec, or use "
                "convert"
            )
        if not isinstance(reference, Encoded):
            reference = self.prepare_voice(reference)
        voice = voice_codes(self.codec, reference)
        return ConversionStream(self.codec, self.nar, voice, block=block, before=before, after=after)
