"""Synthesis: from the sentences of texts to speech.

AR writes takes of a sentence, the best one is chosen, NAR writes the layers above RVQ-1, and the codec decodes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vocable.codec.base import Codec
from vocable.codec.tokens import Encoded
from vocable.lm.ar import AR
from vocable.lm.cancelling import IsCancelled
from vocable.lm.clarity import clarity
from vocable.lm.generated import GeneratedSpeech
from vocable.lm.model import LanguageModels
from vocable.lm.nar import GUIDANCE, NAR, check_guidance
from vocable.lm.passage import Pause
from vocable.lm.sampling import DEFAULT_SAMPLING, Sampling
from vocable.lm.sentences import Sentence, read_sentences
from vocable.lm.speaking import Utterance, speak
from vocable.lm.takes import Judge, Take, rank
from vocable.lm.timing import Timing, change_rate
from vocable.lm.voice import LONGEST, voice_codes
from vocable.lm.words import times

LONGEST_SENTENCE = 200  #: characters that are spoken in one piece
SLOWEST, FASTEST = 0.5, 2.0  #: bounds of the rate
TAKES = 8  #: default number of takes; with 4, half as many words again are lost, in four fifths of the time
LARGEST_BATCH = 16  #: takes of all texts that AR writes at once: more take longer and are not faster

#: Scores a take, higher is better: a function of its waveform, float32 [L] at the codec's sample rate, and its text.
Scorer = Callable[[np.ndarray, str], float]


@dataclass(frozen=True, eq=False)
class SpeechRequest:
    """A text to speak; the fields are the arguments of `USLM.generate`. Raises ValueError for options out of range."""

    text: str
    voice: Encoded | None = None
    language: str | None = None
    sampling: Sampling = DEFAULT_SAMPLING
    takes: int = TAKES
    scorer: Scorer | None = None
    guidance: float = GUIDANCE
    seed: int = 0
    longest: int = LONGEST_SENTENCE
    rate: float = 1.0
    lexicon: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        if not SLOWEST <= self.rate <= FASTEST:
            raise ValueError(f"rate must be {SLOWEST:g} to {FASTEST:g}, not {self.rate}")
        if self.takes < 1:
            raise ValueError(f"takes must be at least 1, not {self.takes}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and less than 2**63, not {self.seed}")


@dataclass(eq=False)
class Plan:
    """The sentences and pauses of a request that are still to be spoken."""

    request: SpeechRequest
    parts: deque[Sentence | Pause]
    #: Codes of the voice, int64 [K, P]. An invented voice, None at first, is that of the seconds spoken so far.
    prompt: Tensor | None
    seed: int  #: of the next sentence


class Synthesizer:
    """Speaks the texts of requests, several at once."""

    def __init__(self, codec: Codec, models: LanguageModels, ar: AR, nar: NAR) -> None:
        self.codec, self.models, self.ar, self.nar = codec, models, ar, nar

    def plan(self, request: SpeechRequest) -> Plan:
        """Read the text of a request. Raises ValueError for a text or a voice that cannot be used."""
        prompt = None if request.voice is None else voice_codes(self.codec, request.voice)
        sentences = read_sentences(
            self.models,
            request.text,
            language=request.language,
            longest=request.longest,
            lexicon=request.lexicon,
        )
        return Plan(request, deque(sentences), prompt, request.seed)

    def speak(self, plans: Sequence[Plan], cancelled: IsCancelled | None) -> Iterator[tuple[int, GeneratedSpeech]]:
        """Speak plans; yield each sentence and pause as soon as it is ready, with the index of its plan.

        AR writes the next sentences of several plans in one batch. Raises `Cancelled`.
        """
        waiting = deque(range(len(plans)))
        active: list[int] = []
        while waiting or active:
            while waiting and (not active or _num_takes(plans, [*active, waiting[0]]) <= LARGEST_BATCH):
                active.append(waiting.popleft())
            for index in active:
                while plans[index].parts and isinstance(pause := plans[index].parts[0], Pause):
                    plans[index].parts.popleft()
                    yield index, self._pause(pause)
            active = [index for index in active if plans[index].parts]
            for index, speech in zip(active, self._speak_next([plans[i] for i in active], cancelled), strict=True):
                yield index, speech

    def _pause(self, pause: Pause) -> GeneratedSpeech:
        rate = self.codec.sample_rate
        codes = torch.zeros(self.codec.num_quantizers, 0, dtype=torch.int64)
        return GeneratedSpeech("", torch.zeros(round(pause.seconds * rate)), rate, codes, [], (), ())

    def _speak_next(self, plans: Sequence[Plan], cancelled: IsCancelled | None) -> Iterator[GeneratedSpeech]:
        """Speak the next sentence of each plan."""
        sentences = []
        for plan in plans:
            sentence = plan.parts.popleft()
            assert isinstance(sentence, Sentence)
            sentences.append(sentence)
        judges = [self._judge(sentence, plan.request) for sentence, plan in zip(sentences, plans, strict=True)]
        texts = [
            Utterance(
                sentence.symbols,
                prompt=None if plan.prompt is None else plan.prompt[0],
                voice=self.codec.embed(plan.prompt[None])[0].T if plan.prompt is not None and self.ar.voice else None,
                sampling=plan.request.sampling,
                takes=plan.request.takes,
                judge=judge,
                seed=plan.seed,
            )
            for sentence, plan, judge in zip(sentences, plans, judges, strict=True)
        ]
        written = speak(self.ar, texts, cancelled=cancelled)
        for plan, sentence, takes, judge in zip(plans, sentences, written, judges, strict=True):
            speech = self._best(sentence, takes, judge, plan, cancelled)
            self._continue(plan, speech)
            yield speech

    def _judge(self, sentence: Sentence, request: SpeechRequest) -> Judge | None:
        """Return the judge of a sentence's takes: the aligner, if there is one and the request has no scorer."""
        if self.models.aligner is None or request.takes == 1 or request.scorer:
            return None
        return partial(clarity, self.models.aligner, self.codec, sentence.symbols)

    def _best(
        self,
        sentence: Sentence,
        takes: Sequence[Take],
        judge: Judge | None,
        plan: Plan,
        cancelled: IsCancelled | None,
    ) -> GeneratedSpeech:
        """Choose the best take and decode it."""
        scorer = plan.request.scorer
        if scorer is None:
            best = takes[rank(takes, judge or _mean_log_likelihood)[0]]
            return self._decode(sentence, best, plan, cancelled)
        spoken = [self._decode(sentence, take, plan, cancelled) for take in takes]
        return max(spoken, key=lambda speech: scorer(speech.waveform.numpy(), sentence.passage.text))

    def _continue(self, plan: Plan, speech: GeneratedSpeech) -> None:
        """Set seed and prompt of the plan's next sentence."""
        plan.seed += 1
        if plan.request.voice is None:
            # At the rate of the models, because speech follows the rate of its prompt.
            _, frames = change_rate([speech.codes.shape[1]], 1 / plan.request.rate)
            spoken = speech.codes[:, frames]
            so_far = spoken if plan.prompt is None else torch.cat([plan.prompt, spoken], 1)
            plan.prompt = so_far[:, : round(LONGEST * self.codec.frame_rate)]

    def _decode(self, sentence: Sentence, take: Take, plan: Plan, cancelled: IsCancelled | None) -> GeneratedSpeech:
        """Write the layers above RVQ-1, decode the codes, and time the words."""
        runs, frames = change_rate(take.timing.frames or [len(take.codes)], plan.request.rate)
        timing = Timing(take.timing.symbols, runs) if take.timing.symbols else None
        codes = self.nar.fill(
            torch.tensor(take.codes)[frames],
            plan.prompt,
            timing.by_frame() if timing else None,
            guidance=plan.request.guidance,
            cancelled=cancelled,
        )
        waveform = self.codec.decode(codes[None]).waveform[0].cpu()
        timing = timing or self._aligned(sentence, codes)
        words = symbols = None
        if timing:
            passage, rate, language = sentence.passage, self.codec.frame_rate, plan.request.language
            words, symbols = times(self.models, passage, sentence.symbols, timing, rate, language=language)
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


def _num_takes(plans: Sequence[Plan], indices: Sequence[int]) -> int:
    return sum(plans[index].request.takes for index in indices)


def _mean_log_likelihood(takes: Sequence[Take]) -> list[float]:
    """Return AR's log-likelihood of each take, in nats per frame."""
    return [take.log_likelihood / max(1, len(take.codes)) for take in takes]
