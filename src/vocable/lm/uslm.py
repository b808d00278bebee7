"""USLM (SpeechTokenizer, arXiv 2308.16692, section 2.4): speech from text, in a voice that three seconds tell.

AR writes RVQ-1 from the text, NAR the layers above from it and the voice, and the codec's decoder speaks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded
from vocable.lm.aligner import REACH
from vocable.lm.ar import Spoken, ranked
from vocable.lm.model import Models, load_models
from vocable.lm.nar import GUIDANCE, sum_of
from vocable.lm.normalization import says_something, split_sentences
from vocable.lm.sampling import Sampling
from vocable.lm.voice import LONGEST, prepare_voice, voice_codes

LONGEST_SENTENCE = 200  #: characters that are spoken in one go
BETWEEN_SENTENCES = 0.15  #: seconds
SHOWN = 60  #: characters of a sentence in a message
TAKES = 8  #: with four, half as many words again are lost, and speech takes a fifth less time

#: How good a take is, the higher the better: of speech [L] at the codec's rate, and its text.
Scorer = Callable[[np.ndarray, str], float]


@dataclass(frozen=True)
class Speech:
    """A text as speech."""

    text: str
    waveform: Tensor  #: float32 [L], on the CPU
    sample_rate: int  #: Hz
    codes: Tensor  #: int64 [K, T]
    warnings: list[str]  #: what went wrong, by name


def with_pauses(parts: Iterable[Speech]) -> Iterator[Tensor]:
    """The waveforms of sentences, and a pause between each two."""
    for number, part in enumerate(parts):
        if number:
            yield torch.zeros(round(BETWEEN_SENTENCES * part.sample_rate))
        yield part.waveform


class USLM:
    """Both language models and the codec that they write for.

    voice, everywhere: what `prepare_voice` returned, or a token file of it, `Encoded.load`; None is a voice that the
    models make up.
    """

    def __init__(self, codec: Codec, models: Models) -> None:
        if models.ar is None or models.nar is None:
            raise ValueError(f"speech needs both models, and the {'NAR' if models.ar else 'AR'} is missing")
        self.codec, self.models, self.ar, self.nar = codec, models, models.ar.eval(), models.nar.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        codec: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> USLM:
        """Load language models: RUN/model of `vocable train lm`, or a hub id; None: those in models/uslm of a
        clone, or as its package is installed. codec: the one that they were trained on, as `load_codec` takes
        it (None: the embedded model). Raises ValueError where there are none, or they do not fit."""
        loaded = load_codec(codec, device=device)
        uslm = cls(loaded, load_models(name, loaded).to(device))
        if loaded.device.type == "cpu":
            for module in uslm.ar.modules():
                if isinstance(module, nn.Linear):  # by columns: a product with a few rows is a quarter faster
                    module.weight.data = module.weight.data.T.contiguous().T
        return uslm

    def prepare_voice(self, waveform: Waveforms, sample_rate: int | None = None) -> Encoded:
        """`voice.prepare_voice` with this codec."""
        return prepare_voice(self.codec, waveform, sample_rate)

    @overload
    def generate(self, text: str, voice: Encoded | None = None, **how: object) -> Speech: ...
    @overload
    def generate(self, text: list[str], voice: Encoded | None = None, **how: object) -> list[Speech]: ...
    def generate(self, text: str | list[str], voice: Encoded | None = None, **how: object) -> Speech | list[Speech]:
        """A text, or each of several, as speech; how: the options of `stream`. Long ones are spoken by sentences."""
        if not isinstance(text, str):
            return [self.generate(one, voice, **how) for one in text]
        parts = list(self.stream(text, voice, **how))  # type: ignore[arg-type]
        return Speech(
            text=text,
            waveform=torch.cat(list(with_pauses(parts))),
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
        takes: int = TAKES,
        scorer: Scorer | None = None,
        guidance: float = GUIDANCE,
        seed: int = 0,
        longest: int = LONGEST_SENTENCE,
    ) -> Iterator[Speech]:
        """Speech sentence by sentence, each as soon as it is there.

        language: ISO 639-1 (None: what the models were trained on). takes: written for each sentence, of which the best
        is spoken: by `scorer`, or else the one in which the models' aligner hears the text best, and the aligner
        judges as they are written, `AR.speak` (without an aligner, the one that AR finds likeliest). guidance: as in
        `NAR.fill`. One seed gives the same speech again. longest: characters that are spoken in one go. Raises
        ValueError for a text that cannot be said, or symbols that the models do not know, before anything is spoken.
        """
        if takes < 1:
            raise ValueError(f"takes is at least 1, not {takes}")
        prompt = None if voice is None else voice_codes(self.codec, voice)
        pieces = [piece for piece in split_sentences(text, longest) if says_something(piece)]
        sentences = [(piece, self._symbols_of(piece, language)) for piece in pieces or [text]]
        return self._spoken(sentences, prompt, sampling, takes, scorer, guidance, seed)

    def _symbols_of(self, sentence: str, language: str | None) -> list[int]:
        try:
            return self.models.symbols_of(sentence, language)
        except ValueError as error:
            raise ValueError(f"{sentence[:SHOWN]!r}: {error}") from error

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _spoken(
        self,
        sentences: Sequence[tuple[str, list[int]]],
        prompt: Tensor | None,
        sampling: Sampling,
        takes: int,
        scorer: Scorer | None,
        guidance: float,
        seed: int,
    ) -> Iterator[Speech]:
        made_up = prompt is None
        for number, (sentence, symbols) in enumerate(sentences):
            semantic = prompt[0] if prompt is not None else None
            vectors = sum_of(self.nar.codebooks, prompt) if prompt is not None and self.ar.voice else None
            judged = takes > 1 and self.models.aligner and not scorer
            hears = partial(self._clarity, symbols) if judged else None
            written = self.ar.speak(
                symbols, semantic, vectors, sampling=sampling, takes=takes, judge=hears, seed=seed + number
            )
            if scorer:
                heard = [self._speech(sentence, take, prompt, guidance) for take in written]
                best = max(heard, key=lambda speech: scorer(speech.waveform.numpy(), sentence))
            else:
                clearest = written[ranked(written, hears or _likelihoods)[0]]
                best = self._speech(sentence, clearest, prompt, guidance)
            yield best
            if made_up:  # the first seconds of a voice that it made up are the voice of what follows
                so_far = best.codes if prompt is None else torch.cat([prompt, best.codes], 1)
                prompt = so_far[:, : round(LONGEST * self.codec.frame_rate)]

    @torch.inference_mode()
    def _clarity(self, symbols: list[int], takes: Sequence[Spoken]) -> list[float]:
        """How well the symbols that each take has spoken to their end can be heard in RVQ-1 alone, which costs little.
        What has just begun tells nothing yet, and would be held against takes that hurry."""
        aligner, device = self.models.aligner, self.codec.device
        assert aligner is not None
        if not any(take.until for take in takes):
            return [-math.inf] * len(takes)
        # Most frames it has heard before; the scores of the newest of them change with what follows.
        kept = [0 if take.heard is None else len(take.heard) for take in takes]
        starts = [max(0, frames - REACH) for frames in kept]
        newest = [torch.tensor(take.codes[start:]) for take, start in zip(takes, starts, strict=True)]
        codes = pad_sequence(newest, batch_first=True).to(device)
        vectors = self.codec.embed(codes[:, None], layers=slice(0, 1)).transpose(1, 2)
        until, said = torch.tensor([(take.until, take.said) for take in takes], device=device).unbind(1)
        scores = list(aligner(vectors, until - torch.tensor(starts, device=device)))
        for i, take in enumerate(takes):
            new = scores[i][kept[i] - starts[i] : take.until - starts[i]]
            scores[i] = new if take.heard is None else torch.cat([take.heard, new])
            take.heard = scores[i][: max(kept[i], take.until - REACH)]
        text = torch.tensor(symbols, device=device).expand(len(takes), -1)
        return aligner.likelihood(pad_sequence(scores, batch_first=True), until, text, said).tolist()

    def _speech(self, sentence: str, take: Spoken, prompt: Tensor | None, guidance: float) -> Speech:
        codes = self.nar.fill(torch.tensor(take.codes), prompt, take.symbols or None, guidance=guidance)
        waveform = self.codec.decode(codes[None]).waveform[0].cpu()
        return Speech(sentence, waveform, self.codec.sample_rate, codes.cpu(), take.warnings)


def _likelihoods(takes: Sequence[Spoken]) -> list[float]:
    """How likely AR finds what it wrote, a mean over frames."""
    return [take.log_likelihood / max(1, len(take.codes)) for take in takes]
