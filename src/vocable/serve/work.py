"""The models of a worker process, and the jobs that it does with them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vocable.codec.base import Codec
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded
from vocable.conversion import VoiceConverter
from vocable.lm.cancelling import IsCancelled
from vocable.lm.generated import Timeline, later
from vocable.lm.model import digest
from vocable.lm.synthesis import Plan, SpeechRequest
from vocable.lm.uslm import USLM
from vocable.lm.voice import prepare_voice
from vocable.serve.jobs import Convert, Loaded, PrepareVoice, Refused, Result, Sound, Speak, Voice
from vocable.serve.payloads import read_recording, refusals, tokens_of
from vocable.serve.settings import Limits, Settings


def load(settings: Settings) -> Models:
    """Load the codec and the language models.

    Raises what the loaders raise; but if no language models were named and the shipped ones are missing or belong to
    another codec, the codec serves alone.
    """
    try:
        uslm = USLM.from_pretrained(settings.models, codec=settings.model, device=settings.device)
    except ValueError as error:
        if settings.models is not None:
            raise
        codec = load_codec(settings.model, device=settings.device)
        return Models(settings.limits, codec, None, None, Loaded(codec.describe(), None, None, str(error)))
    loaded = Loaded(uslm.codec.describe(), f"uslm-{digest(uslm.models)}", uslm.models.language, None)
    return Models(settings.limits, uslm.codec, uslm, VoiceConverter(uslm.codec, uslm.models), loaded)


@dataclass(frozen=True)
class Models:
    """The models that a worker has loaded."""

    limits: Limits
    codec: Codec
    uslm: USLM | None
    converter: VoiceConverter | None
    loaded: Loaded

    def speak(self, jobs: Sequence[Speak], cancelled: IsCancelled) -> Iterator[tuple[int, Result | Refused | None]]:
        """Speak texts in a batch; yield their sentences, each with the silence before it, and the index of its job.

        None is the end of a job, and Refused a text or a voice that cannot be used. cancelled: asked between two steps
        of the models. Raises `Cancelled`.
        """
        if self.uslm is None:
            raise Refused(f"this service does not speak: {self.loaded.missing}")
        plans: dict[int, Plan] = {}
        for index, job in enumerate(jobs):
            try:
                with refusals():
                    plans[index] = self._plan(self.uslm, job)
            except Refused as error:
                yield index, error
        indices, timelines = list(plans), [Timeline() for _ in plans]
        for at, sentence in self.uslm.speak(list(plans.values()), cancelled=cancelled):
            timeline, rate = timelines[at], sentence.sample_rate
            start = (timeline.samples + (silence := timeline.add(sentence))) / rate
            waveform = np.pad(sentence.waveform.numpy(), (silence, 0))
            words = None if sentence.words is None else tuple(later(sentence.words, start))
            yield indices[at], Sound(waveform, rate, sentence.text, tuple(sentence.warnings), words)
            if not plans[indices[at]].parts:
                yield indices[at], None

    def _plan(self, uslm: USLM, job: Speak) -> Plan:
        request = SpeechRequest(
            job.text,
            self._voice(job.voice),
            language=job.language,
            takes=job.takes,
            seed=job.seed or 0,
            rate=job.speed,
        )
        return uslm.plan(request)

    def convert(self, job: Convert, cancelled: IsCancelled) -> Sound:
        """Convert a recording. Raises `Cancelled`, and Refused if a recording, the text or the voice cannot be used."""
        if self.converter is None:
            raise Refused(f"this service does not convert voices: {self.loaded.missing}")
        with refusals(), _caught() as messages:
            voice = self._voice(job.voice)
            assert voice is not None
            source = self._recording(job.source)
            decoded = self.converter.convert(source, voice, text=job.text, language=job.language, cancelled=cancelled)
            return Sound(decoded.clips()[0].cpu().numpy(), self.codec.sample_rate, warnings=tuple(messages))

    def prepare(self, job: PrepareVoice) -> Result:
        """Prepare a voice. Raises Refused if the recording cannot be used."""
        with refusals(), _caught() as messages:
            encoded = prepare_voice(self.codec, self._recording(job.recording))
            return tokens_of(encoded, "safetensors", tuple(messages))

    def _recording(self, data: bytes) -> np.ndarray:
        return read_recording(data, sample_rate=self.codec.sample_rate, longest=self.limits.seconds)

    def _voice(self, voice: Voice | None) -> Encoded | None:
        if voice is None:
            return None
        if voice.is_recording:
            return prepare_voice(self.codec, self._recording(voice.data))
        return Encoded.from_bytes(voice.data, "the voice")


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    """Collect the messages of warnings, as they are issued."""
    messages: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: messages.append(str(message))
        yield messages
