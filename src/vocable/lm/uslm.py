"""USLM (SpeechTokenizer, arXiv 2308.16692, section 2.4): speech from text, in a voice that three seconds tell.

AR writes RVQ-1 from the text, NAR the layers above from it and the voice, and the codec's decoder speaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.clips import Waveforms
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError
from vocable.lm.ar import Spoken
from vocable.lm.model import Models, load_models
from vocable.lm.sampling import Sampling
from vocable.lm.text import read_text, split_sentences

SHORTEST_VOICE, LONGEST_VOICE = 1.0, 3.0  #: seconds
SILENT = 1e-3  #: a voice whose loudest second has a root mean square below this says nothing
LONGEST_SENTENCE = 200  #: characters that are spoken in one go
BETWEEN_SENTENCES = 0.15  #: seconds

#: How good a take is, the higher the better: of speech [L] at the codec's rate, and its text.
Scorer = Callable[[np.ndarray, str], float]


@dataclass(frozen=True)
class Speech:
    """A text as speech."""

    text: str
    waveform: Tensor  #: float32 [L]
    sample_rate: int  #: Hz
    codes: Tensor  #: int64 [K, T]
    warnings: list[str]  #: what went wrong, by name


class USLM:
    """Both language models and the codec that they write for.

    voice, everywhere: what `prepare_voice` returned, or a token file of it, `Encoded.load`; None is a voice that the
    models make up.
    """

    def __init__(self, codec: SpeechTokenizer, models: Models) -> None:
        if models.ar is None or models.nar is None:
            raise ValueError(f"speech needs both models, and the {'NAR' if models.ar else 'AR'} is missing")
        self.codec, self.models, self.ar, self.nar = codec, models, models.ar.eval(), models.nar.eval()

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], codec: str | os.PathLike[str] | None = None, device: str = "cpu"
    ) -> USLM:
        """Load a folder of `vocable train lm`, RUN/model. codec: the one that it was trained on, as
        `SpeechTokenizer.from_pretrained` takes it (None: the embedded model). Raises ValueError where they do not
        fit."""
        loaded = SpeechTokenizer.from_pretrained(codec, device)
        models = load_models(folder, loaded)
        for part in models.parts.values():
            part.to(device)
        return cls(loaded, models)

    def prepare_voice(self, waveform: Waveforms, sample_rate: int | None = None) -> Encoded:
        """The voice of a recording, float [L]: its loudest three seconds as codes, to be kept and used again.

        No text is needed. Raises AudioError for a recording that is too short or silent, or is none.
        """
        encoded = self.codec.encode(waveform, sample_rate)
        if len(encoded) != 1:
            raise AudioError(f"a voice is one recording, not {len(encoded)}")
        rate, frames = self.codec.frame_rate, int(encoded.num_frames)
        if frames < SHORTEST_VOICE * rate:
            raise AudioError(f"the recording lasts {frames / rate:.1f} s: a voice takes a second, better three")
        window = min(frames, round(LONGEST_VOICE * rate))
        energy = self._energy(waveform, frames)
        sums = np.concatenate([[0.0], np.cumsum(energy)])
        windows = sums[window:] - sums[:-window]
        start = int(windows.argmax())
        if windows[start] / window < SILENT**2:
            raise AudioError("the recording is silent: there is no voice in it")
        return Encoded(
            codes=encoded.codes[:, :, start : start + window],
            num_frames=torch.tensor([window]),
            num_samples=torch.tensor([window * self.codec.hop_length]),
            layers=encoded.layers,
            codec_id=encoded.codec_id,
            sample_rate=encoded.sample_rate,
            frame_rate=encoded.frame_rate,
        )

    @overload
    def generate(self, text: str, voice: Encoded | None = None, **how: object) -> Speech: ...
    @overload
    def generate(self, text: list[str], voice: Encoded | None = None, **how: object) -> list[Speech]: ...
    def generate(self, text: str | list[str], voice: Encoded | None = None, **how: object) -> Speech | list[Speech]:
        """A text, or each of several, as speech; how: the options of `stream`. Long ones are spoken by sentences."""
        if not isinstance(text, str):
            return [self.generate(one, voice, **how) for one in text]
        parts = list(self.stream(text, voice, **how))  # type: ignore[arg-type]
        pause = torch.zeros(round(BETWEEN_SENTENCES * self.codec.sample_rate))
        pieces = [piece for part in parts for piece in (part.waveform, pause)][:-1]
        return Speech(
            text=text,
            waveform=torch.cat(pieces),
            sample_rate=self.codec.sample_rate,
            codes=torch.cat([part.codes for part in parts], 1),
            warnings=[warning for part in parts for warning in part.warnings],
        )

    def stream(
        self,
        text: str,
        voice: Encoded | None = None,
        *,
        language: str | None = None,
        sampling: Sampling = Sampling(),
        takes: int = 1,
        scorer: Scorer | None = None,
        seed: int = 0,
    ) -> Iterator[Speech]:
        """Speech sentence by sentence, each as soon as it is there.

        language: ISO 639-1 (None: what the models were trained on). takes: written for each sentence, of which the best
        is spoken: by `scorer`, or else by the model's own likelihood. One seed gives the same speech again. Raises
        ValueError for a text that cannot be said, or symbols that the models do not know, before anything is spoken.
        """
        prompt = self._checked(voice)
        language = language or self.models.language
        sentences = []
        for sentence in split_sentences(text, LONGEST_SENTENCE) or [text]:
            symbols = self.models.table.encode(read_text(sentence, language, self.models.front_end))
            sentences.append((sentence, symbols))
        return self._spoken(sentences, prompt, sampling, takes, scorer, seed)

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _spoken(
        self,
        sentences: Sequence[tuple[str, list[int]]],
        prompt: Tensor | None,
        sampling: Sampling,
        takes: int,
        scorer: Scorer | None,
        seed: int,
    ) -> Iterator[Speech]:
        for number, (sentence, symbols) in enumerate(sentences):
            semantic = prompt[0] if prompt is not None else None
            written: list[Spoken] = []
            for written in self.ar.speak(  # noqa: B007 (the last is wanted)
                symbols, semantic, sampling=sampling, takes=takes, seed=seed + number
            ):
                pass
            if scorer is None:
                written = [self.ar.best_of(written)]
            spoken = [self._voiced(sentence, take, prompt) for take in written]
            if scorer is None:
                yield spoken[0]
            else:
                scores = [scorer(speech.waveform.cpu().numpy(), sentence) for speech in spoken]
                yield spoken[int(np.argmax(scores))]

    def _voiced(self, sentence: str, take: Spoken, prompt: Tensor | None) -> Speech:
        codes = self.nar.fill(torch.tensor(take.codes), prompt, take.symbols or None)
        waveform = self.codec.decode(codes[None]).waveform[0]
        return Speech(sentence, waveform, self.codec.sample_rate, codes.cpu(), take.warnings)

    def _checked(self, voice: Encoded | None) -> Tensor | None:
        """The codes of a voice, int64 [K, P]. Raises TokensError for what this codec did not make whole."""
        if voice is None:
            return None
        if voice.codec_id != self.codec.id:
            raise TokensError(
                f"the voice is of codec {voice.codec_id}, these models speak {self.codec.id}: prepare it again"
            )
        if len(voice) != 1 or voice.codes.shape[1] != self.codec.num_quantizers:
            raise TokensError("a voice is one clip with all layers: use prepare_voice")
        return voice.codes[0, :, : int(voice.num_frames)]

    def _energy(self, waveform: Waveforms, frames: int) -> np.ndarray:
        """The mean square of about each frame, whatever the recording's rate: float64 [T]."""
        samples = np.asarray(waveform[0] if isinstance(waveform, (list, tuple)) else waveform, np.float64).ravel()
        edges = np.linspace(0, len(samples), frames + 1).astype(int)
        sums = np.concatenate([[0.0], np.cumsum(samples**2)])
        means: np.ndarray = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(1, np.diff(edges))
        return means
