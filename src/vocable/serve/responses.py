"""Responses of audio: streams, sentence by sentence, and whole files."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from vocable.serve.encoders import MEDIA_TYPES, PCM_RATE, AudioFormat, encode_file, open_stream
from vocable.serve.engine import Engine, Results
from vocable.serve.errors import ApiError
from vocable.serve.jobs import Failed, Job, Result, Sound, Tokens
from vocable.serve.metrics import Metrics

CLIENT_LEFT = 499  #: status, in the log and the metrics, of a request whose client went away


async def result_of(request: Request, job: Job) -> Result:
    """Do a job that has one result. If the client goes away, the job is cancelled, and ApiError is raised."""
    with _engine(request).submit(job) as results:
        return await _next(request, results)


async def sound_of(request: Request, job: Job) -> Sound:
    """Do a job whose result is one `Sound`, as `result_of` does."""
    result = await result_of(request, job)
    assert isinstance(result, Sound)
    return result


async def tokens_of(request: Request, job: Job) -> Tokens:
    """Do a job whose result is one `Tokens`, as `result_of` does."""
    result = await result_of(request, job)
    assert isinstance(result, Tokens)
    return result


async def audio_file(sound: Sound, format: AudioFormat) -> Response:
    """Return speech as a file."""
    data = await asyncio.to_thread(encode_file, sound.waveform, sound.sample_rate, format)
    return Response(data, media_type=MEDIA_TYPES[format], headers=_headers(sound, format))


async def audio_stream(request: Request, job: Job, format: AudioFormat, *, events: bool) -> Response:
    """Return speech as a stream, which begins with the first sentence: as audio, or as server-sent events.

    An error before the first sentence is raised, so that the response has its status. A later one ends the connection
    before the end of the stream, or is an event.
    """
    results = _engine(request).submit(job)
    try:
        first = await _next(request, results)
        assert isinstance(first, Sound)
    except BaseException:
        results.cancel()
        raise
    metrics: Metrics = request.app.state.metrics
    chunks = _encoded(results, first, format, metrics)
    if events:
        headers = {"Cache-Control": "no-cache"}
        return StreamingResponse(_events(chunks), media_type="text/event-stream", headers=headers)
    return StreamingResponse(chunks, media_type=MEDIA_TYPES[format], headers=_headers(first, format))


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _headers(sound: Sound, format: AudioFormat) -> dict[str, str]:
    return {"X-Sample-Rate": str(PCM_RATE if format == "pcm" else sound.sample_rate)}


async def _next(request: Request, results: Results) -> Result:
    """Return the next result. Raises ApiError if the client goes away before it is there."""
    coming = asyncio.ensure_future(anext(results))
    leaves = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({coming, leaves}, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            raise ApiError(CLIENT_LEFT, "the client left")
        return coming.result()
    except StopAsyncIteration:
        raise Failed("the worker sent no result") from None
    finally:
        coming.cancel()
        leaves.cancel()


async def _left(request: Request) -> None:
    """Wait until the client goes away. The body of the request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _encoded(results: Results, first: Sound, format: AudioFormat, metrics: Metrics) -> AsyncIterator[bytes]:
    """Yield the bytes of a stream."""
    stream = open_stream(format, first.sample_rate)
    with results:
        sound = first
        while True:
            metrics.audio.labels("spoken").inc(sound.seconds)
            if chunk := await asyncio.to_thread(stream.write, sound.waveform):
                yield chunk
            try:
                following = await anext(results)
            except StopAsyncIteration:
                break
            assert isinstance(following, Sound)
            sound = following
        if chunk := await asyncio.to_thread(stream.close):
            yield chunk


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the events of OpenAI's interface: audio in base64, and the end; or the error that ends the stream."""
    try:
        async for chunk in chunks:
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()})
    except Exception as error:
        message = str(error) if isinstance(error, (RuntimeError, ValueError)) else "the service failed"
        yield _event({"type": "error", "error": {"message": message, "type": "server_error"}})
        raise
    yield _event({"type": "speech.audio.done"})


def _event(values: dict[str, object]) -> str:
    return f"data: {json.dumps(values)}\n\n"
