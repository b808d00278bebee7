"""Worker processes: results, refusals, batches, cancelling, death and replacement."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import SPEECH
from vocable import audio
from vocable.codec.tokens import Encoded
from vocable.lm.cancelling import Cancelled
from vocable.lm.uslm import USLM
from vocable.serve import Limits, Settings
from vocable.serve.batches import decode, encode
from vocable.serve.engine import Engine, Results
from vocable.serve.jobs import (
    Decode,
    Encode,
    Full,
    PrepareVoice,
    Refused,
    Sound,
    Speak,
    Tokens,
    TooLarge,
    Unavailable,
    Voice,
)
from vocable.serve.waiting import Waiting


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Engine]:
    engine = Engine(settings)
    await engine.start()
    try:
        await until(lambda: engine.ready)
        yield engine
    finally:
        await engine.stop()


async def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), seconds)


def test_jobs_give_what_the_package_gives(settings: Settings, uslm: USLM, tmp_path: Path) -> None:
    codec = uslm.codec

    async def scenario() -> None:
        async with running(settings) as engine:
            tokens = await engine.run(Encode(SPEECH.read_bytes()))
            assert isinstance(tokens, Tokens)
            encoded = Encoded.from_bytes(tokens.data)
            assert encoded.codes.equal(codec.encode_long(audio.read_blocks(SPEECH, codec.sample_rate)).codes)
            sound = await engine.run(Decode(tokens.data))
            assert isinstance(sound, Sound)
            np.testing.assert_allclose(sound.waveform, codec.decode(encoded).waveform[0], atol=1e-5)
            voice = await engine.run(PrepareVoice(SPEECH.read_bytes()))
            assert isinstance(voice, Tokens)
            with engine.submit(Speak("one. two.", Voice(voice.data, is_recording=False), seed=4, takes=2)) as results:
                sounds = [sound async for sound in results]
            prompt = uslm.prepare_voice(np.concatenate(list(audio.read_blocks(SPEECH, 16_000))))
            assert [sound.text for sound in sounds] == ["one.", "two."]
            spoken = np.concatenate([sound.waveform for sound in sounds])
            np.testing.assert_array_equal(spoken, uslm.generate("one. two.", prompt, seed=4, takes=2).waveform)
            for job, message in [
                (Encode(b"no audio"), "not readable as audio"),
                (Encode(SPEECH.read_bytes(), slice(0, 9)), "layers"),
                (Decode(b"[1]", "json"), "the tokens: not a token file"),
                (Speak("..."), "needs a letter"),
            ]:
                with pytest.raises(Refused, match=message):
                    await engine.run(job)
            assert engine.restarts == 0

    asyncio.run(scenario())


def test_what_waits_is_encoded_in_one_batch_and_a_full_queue_refuses(settings: Settings, uslm: USLM) -> None:
    settings = dataclasses.replace(settings, limits=Limits(waiting=6, seconds=10))
    noise = [np.random.default_rng(i).normal(size=8000 + 3000 * i) * 0.1 for i in range(5)]
    files = [wav(clip) for clip in noise] + [wav(np.zeros(16_000 * 11))]
    sizes: list[int] = []

    async def scenario() -> None:
        async with running(settings) as engine:
            engine.on_batch = sizes.append
            jobs = [engine.submit(Encode(file)) for file in files]
            with pytest.raises(Full, match="6 requests wait already"):
                engine.submit(Encode(files[0]))
            outcomes = [await anext(results) for results in jobs[:5]]
            for outcome, file in zip(outcomes, files[:5], strict=True):
                assert isinstance(outcome, Tokens)
                alone = await engine.run(Encode(file))
                assert isinstance(alone, Tokens) and alone.data == outcome.data
            with pytest.raises(TooLarge, match="more than 10 s"):
                await anext(jobs[5])

    asyncio.run(scenario())
    assert sizes == [6, 1, 1, 1, 1, 1]


def test_texts_that_wait_are_spoken_in_one_batch_but_those_with_a_seed_alone(settings: Settings) -> None:
    texts = ["one. two. three.", "...", "four."]
    sizes: list[int] = []
    ended: list[int] = []

    async def scenario() -> None:
        async with running(settings) as engine:
            engine.on_batch = sizes.append
            jobs = [engine.submit(Speak(text, takes=2)) for text in texts]
            seeded = engine.submit(Speak("five.", seed=1))

            async def read(index: int) -> list[str]:
                sounds = [sound.text async for sound in jobs[index] if isinstance(sound, Sound)]
                ended.append(index)
                return sounds

            spoken, refused, short = await asyncio.gather(*map(read, range(3)), return_exceptions=True)
            assert spoken == ["one.", "two.", "three."] and short == ["four."]
            assert isinstance(refused, Refused)
            assert [sound.text async for sound in seeded if isinstance(sound, Sound)] == ["five."]

    asyncio.run(scenario())
    assert ended == [2, 0] and sizes == [3, 1]


def test_a_batch_leaves_the_other_workers_their_part() -> None:
    async def scenario() -> list[int]:
        waiting: Waiting[Results] = Waiting(20)
        for _ in range(8):
            waiting.add(Results(Encode(b""), lambda results: None))
        return [len(await waiting.take(workers=2)) for _ in range(4)]

    assert asyncio.run(scenario()) == [4, 2, 1, 1]


@pytest.mark.parametrize("clips", [1, 3], ids=["blocks of one clip", "batches of clips"])
def test_encoding_and_decoding_stop_when_nobody_waits(uslm: USLM, clips: int) -> None:
    recording = wav(np.random.default_rng(0).normal(size=16_000 * 62) * 0.1)  # three blocks; one batch for each clip
    answers = iter([False] * 2)

    def cancelled() -> bool:
        return next(answers, True)

    with pytest.raises(Cancelled):
        encode(uslm.codec, [Encode(recording)] * clips, longest=100, cancelled=cancelled)
    [tokens] = encode(uslm.codec, [Encode(recording)], longest=100, cancelled=lambda: False)
    assert isinstance(tokens, Tokens)
    answers = iter([False])
    with pytest.raises(Cancelled):
        decode(uslm.codec, [Decode(tokens.data)] * clips, longest=100, cancelled=cancelled)


def wav(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, 16_000, format="WAV")
    return file.getvalue()


def test_a_job_that_is_left_ends(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as engine:
            with engine.submit(Speak("one. " * 500)) as results:
                await anext(results)
                with engine.submit(Speak("waits.")) as waits:
                    assert len(engine.waiting) == 1
                assert len(engine.waiting) == 0 and waits.cancelled
            await asyncio.wait_for(engine.run(Encode(SPEECH.read_bytes())), 60)
            assert engine.restarts == 0

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX systems do")
def test_a_worker_that_is_killed_is_replaced(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as engine:
            [first] = engine.process_ids
            with engine.submit(Speak("one. " * 500)) as results:
                await anext(results)
                os.kill(first, signal.SIGKILL)
                with pytest.raises(Unavailable, match="died"):
                    while True:
                        await anext(results)
            await until(lambda: not engine.ready)
            sound = await engine.run(Speak("two."))  # waits for the next worker
            assert isinstance(sound, Sound) and engine.restarts == 1
            [second] = engine.process_ids
            os.kill(second, signal.SIGKILL)  # while it is idle
            await until(lambda: engine.restarts == 2)
            assert isinstance(await engine.run(Speak("three.")), Sound)

    asyncio.run(scenario())


def test_models_that_are_missing_are_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Engine(Settings(model=str(tmp_path)))
        failed = asyncio.Event()
        engine.on_failure = failed.set
        await engine.start()
        with pytest.raises(Unavailable, match="being loaded"):
            engine.submit(Speak("hello"))
        await asyncio.wait_for(failed.wait(), 120)
        assert engine.failure and str(tmp_path) in engine.failure and not engine.ready
        await engine.stop()

    asyncio.run(scenario())
