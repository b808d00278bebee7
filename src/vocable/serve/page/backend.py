"""The service as the page uses it: jobs of its engine, with the errors that the page shows."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from vocable.codec.tokens import Encoded
from vocable.serve.engine import Engine
from vocable.serve.jobs import (
    Convert,
    Decode,
    Encode,
    Failed,
    Job,
    Loaded,
    Refused,
    Result,
    Sound,
    Speak,
    Tokens,
    Unavailable,
    Voice,
)
from vocable.serve.payloads import read_recording, refusals
from vocable.serve.settings import Settings
from vocable.serve.voices import VoiceStore

CHECK_SECONDS = 0.2  #: between two checks whether the models have been loaded


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording and its tokens."""

    waveform: np.ndarray  #: float32 [L]
    sample_rate: int  #: Hz
    encoded: Encoded  #: one clip, all layers

    @property
    def codes(self) -> np.ndarray:
        """The codes: int64 [K, T]."""
        codes: np.ndarray = self.encoded.codes[0].numpy()
        return codes

    @property
    def sound(self) -> Sound:
        """The recording as it is played."""
        return Sound(self.waveform, self.sample_rate)

    def first_layers(self, count: int) -> Encoded:
        """Return the tokens of the first `count` layers, or of all if there are fewer."""
        count = min(count, len(self.codes))
        return replace(self.encoded, codes=self.encoded.codes[:, :count], layers=slice(0, count))


class Backend:
    """Runs jobs for the page. Errors that a user can mend, and those of the service, become `gr.Error`."""

    def __init__(self, engine: Engine, settings: Settings, voices: VoiceStore | None) -> None:
        self.engine, self.settings, self.voices = engine, settings, voices

    async def loaded(self) -> Loaded:
        """Wait until the models are loaded; return their description."""
        while self.engine.loaded is None:
            if self.engine.failure:
                raise gr.Error(self.engine.failure, print_exception=False)
            await asyncio.sleep(CHECK_SECONDS)
        return self.engine.loaded

    async def encode(self, recording: str) -> Recording:
        """Encode a recording. recording: the path of an audio file."""
        rate = int((await self.loaded()).codec["sample_rate"])
        data = await asyncio.to_thread(Path(recording).read_bytes)
        with _shown():
            with refusals():
                waveform = await asyncio.to_thread(
                    read_recording, data, sample_rate=rate, longest=self.settings.limits.seconds
                )
            tokens = await self._run(Encode(data))
        assert isinstance(tokens, Tokens)
        return Recording(waveform, rate, Encoded.from_bytes(tokens.data))

    async def decode(self, encoded: Encoded) -> Sound:
        """Decode the tokens of a clip."""
        with _shown():
            sound = await self._run(Decode(encoded.to_bytes()))
        assert isinstance(sound, Sound)
        return sound

    async def convert(self, source: str, voice: Voice, text: str | None) -> Sound:
        """Convert a recording to a voice. source: the path of an audio file. text: of the source, if it is known."""
        data = await asyncio.to_thread(Path(source).read_bytes)
        with _shown():
            sound = await self._run(Convert(data, voice, self._checked(text) if text else None))
        assert isinstance(sound, Sound)
        return sound

    async def speak(self, text: str, voice: Voice | None, *, takes: int, seed: int) -> AsyncIterator[Sound]:
        """Speak a text; yield its sentences. The job is cancelled when the iterator is closed."""
        await self.loaded()
        with _shown(), self.engine.submit(Speak(self._checked(text), voice, takes=takes, seed=seed)) as results:
            async for sound in results:
                assert isinstance(sound, Sound)
                yield sound

    async def recorded_voice(self, recording: str) -> Voice:
        """Return the voice of a recording. recording: the path of an audio file."""
        return Voice(await asyncio.to_thread(Path(recording).read_bytes), is_recording=True)

    async def prepared_voice(self, name: str) -> Voice:
        """Return a prepared voice of the service."""
        tokens = await asyncio.to_thread(self.voices.tokens, name) if self.voices else None
        if tokens is None:
            raise gr.Error(f"there is no voice {name!r} any more: choose another", print_exception=False)
        return Voice(tokens, is_recording=False)

    async def voice_names(self) -> list[str]:
        """Return the names of the prepared voices that fit the codec."""
        if self.voices is None:
            return []
        token_id = (await self.loaded()).codec["token_id"]
        return [v.name for v in await asyncio.to_thread(self.voices.records) if v.token_id == token_id]

    async def bitrate(self, layers: int) -> float:
        """Return the bits per second of the first `layers` layers, without entropy coding."""
        codec: dict[str, Any] = (await self.loaded()).codec
        return float(codec["frame_rate"] * sum(map(math.log2, codec["codebook_sizes"][:layers])))

    async def _run(self, job: Job) -> Result:
        await self.loaded()
        return await self.engine.run(job)

    def _checked(self, text: str) -> str:
        most = self.settings.limits.characters
        if len(text) > most:
            raise gr.Error(f"the text has {len(text)} characters, and the limit is {most}", print_exception=False)
        return text


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    """Show the errors of jobs on the page."""
    try:
        yield
    except (Refused, Failed, Unavailable) as error:
        raise gr.Error(str(error), print_exception=False) from error
