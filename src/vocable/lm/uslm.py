"""USLM: text to speech in the voice of a recording (SpeechTokenizer, arXiv 2308.16692, section 2.4).

AR writes RVQ-1 codes from the text, NAR writes the layers above from these codes and the voice, and the codec decodes
them.
"""

# ruff: noqa: RUF002 (IPA)

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import overload

from torch import nn

from vocable.codec.base import Codec
from vocable.codec.clips import Waveforms
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded
from vocable.lm.cancelling import IsCancelled
from vocable.lm.generated import GeneratedSpeech, join
from vocable.lm.model import LanguageModels, load_models
from vocable.lm.nar import GUIDANCE
from vocable.lm.sampling import DEFAULT_SAMPLING, Sampling
from vocable.lm.synthesis import LONGEST_SENTENCE, TAKES, Plan, Scorer, SpeechRequest, Synthesizer
from vocable.lm.voice import prepare_voice


class USLM:
    """Text to speech: AR, NAR, and the codec that they were trained for.

    A `voice` is what `prepare_voice` returns, or its token file (`Encoded.load`); with None, the models invent a voice.
    """

    def __init__(self, codec: Codec, models: LanguageModels) -> None:
        if models.ar is None or models.nar is None:
            raise ValueError(f"speech needs AR and NAR, and the {'NAR' if models.ar else 'AR'} is missing")
        self.codec, self.models, self.ar, self.nar = codec, models, models.ar.eval(), models.nar.eval()
        self._synthesizer = Synthesizer(codec, models, self.ar, self.nar)

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
        sampling: Sampling = DEFAULT_SAMPLING,
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
        sampling: Sampling = DEFAULT_SAMPLING,
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
        sampling: Sampling = DEFAULT_SAMPLING,
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
        seed: the same seed gives the same speech. The texts of a list are written in batches, so rounding errors can
            make their speech different from that of a text alone.
        longest: characters that are spoken in one piece; longer sentences are split.
        rate: of speaking: durations are divided by it, and the pitch stays. 0.5 to 2.
        lexicon: IPA by word (`read_lexicon`), for all texts. Upper and lower case are the same.
        cancelled: asked between two steps of the models, in the thread that speaks. When it returns True, the call (or
            the next sentence of `stream`) raises `Cancelled`. `threading.Event().is_set` is such a function.

        Raises ValueError, before anything is spoken, for a text that cannot be spoken, an option out of range, and a
        voice that is not for this codec. Warns if `language` is not that of the training texts.
        """
        request_of = partial(
            SpeechRequest,
            voice=voice,
            language=language,
            sampling=sampling,
            takes=takes,
            scorer=scorer,
            guidance=guidance,
            seed=seed,
            longest=longest,
            rate=rate,
            lexicon=lexicon,
        )
        texts = [text] if isinstance(text, str) else text
        parts: list[list[GeneratedSpeech]] = [[] for _ in texts]
        for index, speech in self.speak([self.plan(request_of(one)) for one in texts], cancelled=cancelled):
            parts[index].append(speech)
        joined = [join(one, speech) for one, speech in zip(texts, parts, strict=True)]
        return joined[0] if isinstance(text, str) else joined

    def stream(
        self,
        text: str,
        voice: Encoded | None = None,
        *,
        language: str | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
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
        request = SpeechRequest(
            text,
            voice=voice,
            language=language,
            sampling=sampling,
            takes=takes,
            scorer=scorer,
            guidance=guidance,
            seed=seed,
            longest=longest,
            rate=rate,
            lexicon=lexicon,
        )
        plans = [self.plan(request)]
        return (speech for _, speech in self.speak(plans, cancelled=cancelled))

    def plan(self, request: SpeechRequest) -> Plan:
        """Read the text and the voice of a request, for `speak`. Errors are those of `generate`."""
        return self._synthesizer.plan(request)

    def speak(
        self, plans: Sequence[Plan], *, cancelled: IsCancelled | None = None
    ) -> Iterator[tuple[int, GeneratedSpeech]]:
        """Speak several texts, each in its own voice and with its own options, in batches; yield each sentence as soon
        as it is ready, with the index of its plan.

        A plan can be spoken once. cancelled: as in `generate`. Warns, at the call, of languages other than that of the
        training texts.
        """
        for language in {plan.request.language for plan in plans}:
            self.models.warn_of_language(language)
        return self._synthesizer.speak(plans, cancelled)
