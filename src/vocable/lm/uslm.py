"""USLM: text to speech in the voice of a recording (SpeechTokenizer, arXiv 2308.16692, section 2.4).

AR writes RVQ-1 codes from the text, NAR writes the layers above from these codes and the voice, and the codec decodes
them.
"""

# ruff: noqa: RUF002 (IPA)

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded
from vocable.lm.cancelling import IsCancelled
from vocable.lm.clarity import clarity
from vocable.lm.generated import GeneratedSpeech, join
from vocable.lm.model import LanguageModels, load_models
from vocable.lm.nar import GUIDANCE, check_guidance
from vocable.lm.passage import Pause
from vocable.lm.sampling import Sampling
from vocable.lm.sentences import Sentence, read_sentences
from vocable.lm.speaking import Take, rank, speak
from vocable.lm.timing import Timing, change_rate
from vocable.lm.voice import LONGEST, prepare_voice, voice_codes
from vocable.lm.words import times

LONGEST_SENTENCE = 200  #: characters that are spoken in one piece
SLOWEST, FASTEST = 0.5, 2.0  #: bounds of the rate
TAKES = 8  #: default number of takes; with 4, half as many words again are lost, in four fifths of the time

#: Scores a take, higher is better: a function of its waveform, float32 [L] at the codec's sample rate, and its text.
Scorer = Callable[[np.ndarray, str], float]


@dataclass(frozen=True)
class _Options:
    """The options of `USLM.stream`, checked."""

    language: str | None
    sampling: Sampling
    takes: int
    scorer: Scorer | None
    guidance: float
    seed: int
    longest: int
    rate: float
    lexicon: Mapping[str, str] | None
    cancelled: IsCancelled | None

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        if not SLOWEST <= self.rate <= FASTEST:
            raise ValueError(f"rate must be {SLOWEST:g} to {FASTEST:g}, not {self.rate}")
        if self.takes < 1:
            raise ValueError(f"takes must be at least 1, not {self.takes}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and less than 2**63, not {self.seed}")


class USLM:
    """Text to speech: AR, NAR, and the codec that they were trained for.

    A `voice` is what `prepare_voice` returns, or its token file (`Encoded.load`); with None, the models invent a voice.
    """

    def __init__(self, codec: Codec, models: LanguageModels) -> None:
        if models.ar is None or models.nar is None:
            raise ValueError(f"speech needs AR and NAR, and the {'NAR' if models.ar else 'AR'} is missing")
        self.codec, self.models, self.ar, self.nar = codec, models, models.ar.eval(), models.nar.eval()

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
    ) -> USLM:
        """Load language models and their codec.

        name: RUN/model of `vocable train lm`, or a hub id; None: the shipped models, of the installed package
        models/uslm or of a clone. codec: the name of the codec that they were trained for, as in `load_codec` (None:
        the embedded one). revision: branch, tag or commit of the language models on the hub. cache_dir,
        local_files_only: of both downloads, as in huggingface_hub. Raises ValueError if there are no such models, or if
        they are for another codec.
        """
        loaded = load_codec(codec, device=device, cache_dir=cache_dir, local_files_only=local_files_only)
        models = load_models(name, loaded, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        uslm = cls(loaded, models.to(device))
        if loaded.device.type == "cpu":
            for module in uslm.ar.modules():
                if isinstance(module, nn.Linear):  # column-major: products with few rows take a quarter less time
                    module.weight.data = module.weight.data.T.contiguous().T
        return uslm

    def prepare_voice(self, waveform: Waveforms, *, sample_rate: int | None = None) -> Encoded:
        """Return the voice of a recording, as `vocable.lm.voice.prepare_voice` does, for this codec."""
        return prepare_voice(self.codec, waveform, sample_rate=sample_rate)

    @property
    def has_timings(self) -> bool:
        """Whether speech has the times of its words: AR writes them, or there is an aligner."""
        return self.ar.config.timed or self.models.aligner is not None

    @overload
    def generate(
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
        rate: float = 1.0,
        lexicon: Mapping[str, str] | None = None,
        cancelled: IsCancelled | None = None,
    ) -> GeneratedSpeech: ...
    @overload
    def generate(
        self,
        text: list[str],
        voice: Encoded | None = None,
        *,
        language: str | None = None,
        sampling: Sampling = Sampling(),
        takes: int = TAKES,
        scorer: Scorer | None = None,
        guidance: float = GUIDANCE,
        seed: int = 0,
        longest: int = LONGEST_SENTENCE,
        rate: float = 1.0,
        lexicon: Mapping[str, str] | None = None,
        cancelled: IsCancelled | None = None,
    ) -> list[GeneratedSpeech]: ...
    def generate(
        self,
        text: str | list[str],
        voice: Encoded | None = None,
        *,
        language: str | None = None,
        sampling: Sampling = Sampling(),
        takes: int = TAKES,
        scorer: Scorer | None = None,
        guidance: float = GUIDANCE,
        seed: int = 0,
        longest: int = LONGEST_SENTENCE,
        rate: float = 1.0,
        lexicon: Mapping[str, str] | None = None,
        cancelled: IsCancelled | None = None,
    ) -> GeneratedSpeech | list[GeneratedSpeech]:
        """Speak a text, or each text of a list, in a voice.

        text: `[pause 0.7s]` in it is silence, and `[word](/wɜːd/)` is a word with its pronunciation in IPA.
        language: of the text, ISO 639-1 (None: that of the training texts).
        sampling: how codes are drawn.
        takes: versions written of each sentence; the best one is spoken.
        scorer: chooses the best take. By default the models' aligner does: it scores how clearly the take speaks its
            text, also while takes are written (`speak`). Without an aligner the take with the highest likelihood wins.
        guidance: weight of the voice and the text in NAR, as in `NAR.fill`; 0 loses more words and sounds more natural.
        seed: the same seed gives the same speech.
        longest: characters that are spoken in one piece; longer sentences are split.
        rate: of speaking: durations are divided by it, and the pitch stays. 0.5 to 2.
        lexicon: IPA by word (`read_lexicon`), for all texts. Upper and lower case are the same.
        cancelled: asked between two steps of the models, in the thread that speaks. When it returns True, the call (or
            the next sentence of `stream`) raises `Cancelled`. `threading.Event().is_set` is such a function.

        Raises ValueError, before anything is spoken, for a text that cannot be spoken, an option out of range, and a
        voice that is not for this codec. Warns if `language` is not that of the training texts.
        """
        options = _Options(language, sampling, takes, scorer, guidance, seed, longest, rate, lexicon, cancelled)
        texts = [text] if isinstance(text, str) else text
        prompt = self._prompt(voice)
        plans = [self._sentences(one, options) for one in texts]
        self.models.warn_of_language(language)
        speech = [join(one, list(self._speak(plan, prompt, options))) for one, plan in zip(texts, plans, strict=True)]
        return speech[0] if isinstance(text, str) else speech

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
        rate: float = 1.0,
        lexicon: Mapping[str, str] | None = None,
        cancelled: IsCancelled | None = None,
    ) -> Iterator[GeneratedSpeech]:
        """Speak a text sentence by sentence; yields each one as soon as it is ready.

        Options, errors and warnings are those of `generate`; the arguments are checked at the call.
        """
        options = _Options(language, sampling, takes, scorer, guidance, seed, longest, rate, lexicon, cancelled)
        prompt = self._prompt(voice)
        sentences = self._sentences(text, options)
        self.models.warn_of_language(language)
        return self._speak(sentences, prompt, options)

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _prompt(self, voice: Encoded | None) -> Tensor | None:
        """Return the codes of a voice, int64 [K, P]."""
        return None if voice is None else voice_codes(self.codec, voice)

    def _sentences(self, text: str, options: _Options) -> list[Sentence | Pause]:
        return read_sentences(
            self.models, text, language=options.language, longest=options.longest, lexicon=options.lexicon
        )

    def _speak(
        self, parts: Sequence[Sentence | Pause], prompt: Tensor | None, options: _Options
    ) -> Iterator[GeneratedSpeech]:
        """Speak sentences; `prompt` is the voice's codes. An invented voice is that of the seconds spoken so far."""
        invented, seed = prompt is None, options.seed
        for part in parts:
            if isinstance(part, Pause):
                yield self._pause(part)
                continue
            speech = self._speak_sentence(part, prompt, options, seed)
            yield speech
            seed += 1
            if invented:
                # At the rate of the models, because speech follows the rate of its prompt.
                _, frames = change_rate([speech.codes.shape[1]], 1 / options.rate)
                so_far = speech.codes[:, frames] if prompt is None else torch.cat([prompt, speech.codes[:, frames]], 1)
                prompt = so_far[:, : round(LONGEST * self.codec.frame_rate)]

    def _pause(self, pause: Pause) -> GeneratedSpeech:
        rate = self.codec.sample_rate
        codes = torch.zeros(self.codec.num_quantizers, 0, dtype=torch.int64)
        return GeneratedSpeech("", torch.zeros(round(pause.seconds * rate)), rate, codes, [], (), ())

    def _speak_sentence(
        self, sentence: Sentence, prompt: Tensor | None, options: _Options, seed: int
    ) -> GeneratedSpeech:
        """Write takes of one sentence, choose the best, and decode it."""
        aligner = self.models.aligner if options.takes > 1 and not options.scorer else None
        judge = partial(clarity, aligner, self.codec, sentence.symbols) if aligner else None
        takes = speak(
            self.ar,
            sentence.symbols,
            prompt=None if prompt is None else prompt[0],
            voice=self.codec.embed(prompt[None])[0].T if prompt is not None and self.ar.voice else None,
            sampling=options.sampling,
            takes=options.takes,
            judge=judge,
            seed=seed,
            cancelled=options.cancelled,
        )
        if options.scorer is None:
            best = takes[rank(takes, judge or _mean_log_likelihood)[0]]
            return self._decode(sentence, best, prompt, options)
        scorer = options.scorer
        spoken = [self._decode(sentence, take, prompt, options) for take in takes]
        return max(spoken, key=lambda speech: scorer(speech.waveform.numpy(), sentence.passage.text))

    def _decode(self, sentence: Sentence, take: Take, prompt: Tensor | None, options: _Options) -> GeneratedSpeech:
        """Write the layers above RVQ-1, decode the codes, and time the words."""
        runs, frames = change_rate(take.timing.frames or [len(take.codes)], options.rate)
        timing = Timing(take.timing.symbols, runs) if take.timing.symbols else None
        codes = self.nar.fill(
            torch.tensor(take.codes)[frames],
            prompt,
            timing.by_frame() if timing else None,
            guidance=options.guidance,
            cancelled=options.cancelled,
        )
        waveform = self.codec.decode(codes[None]).waveform[0].cpu()
        timing = timing or self._aligned(sentence, codes)
        words = symbols = None
        if timing:
            passage, rate = sentence.passage, self.codec.frame_rate
            words, symbols = times(self.models, passage, sentence.symbols, timing, rate, language=options.language)
        return GeneratedSpeech(
            sentence.passage.text, waveform, self.codec.sample_rate, codes.cpu(), take.warnings, words, symbols
        )

    def _aligned(self, sentence: Sentence, codes: Tensor) -> Timing | None:
        """Return the timing that the aligner finds; None without one, or if there are too few frames for the text."""
        if self.models.aligner is None:
            return None
        try:
            return self.models.aligner.align(
                self.codec.embed(codes[None])[0].T, sentence.symbols, self.codec.frame_rate
            )
        except ValueError:
            return None


def _mean_log_likelihood(takes: Sequence[Take]) -> list[float]:
    """Return AR's log-likelihood of each take, in nats per frame."""
    return [take.log_likelihood / max(1, len(take.codes)) for take in takes]
