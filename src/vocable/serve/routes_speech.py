"""`/v1/audio/speech`, `/v1/audio/convert` and `/v1/audio/voices`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, Response

from vocable.lm.synthesis import TAKES
from vocable.serve.encoders import AudioFormat
from vocable.serve.errors import ApiError
from vocable.serve.jobs import Convert, PrepareVoice, Speak, Voice
from vocable.serve.responses import audio_file, audio_stream, sound_of, tokens_of
from vocable.serve.schemas import SPEECH_BODY, Language, SpeechRequest, speech_request
from vocable.serve.settings import Settings
from vocable.serve.voices import VoiceRecord, VoiceStore

DEFAULT_VOICE = "default"  #: the voice that the models invent
router = APIRouter(prefix="/v1/audio")


@router.post("/speech", openapi_extra=SPEECH_BODY, response_class=Response)
async def speak(request: Request, asked: Annotated[SpeechRequest, Depends(speech_request)]) -> Response:
    """Speak a text; the audio is sent sentence by sentence."""
    settings: Settings = request.app.state.settings
    _check_model(request, asked.model)
    _check_text(asked.input, settings.limits.characters, "input")
    takes = min(TAKES, settings.limits.takes) if asked.takes is None else asked.takes
    if takes > settings.limits.takes:
        raise ApiError(422, f"takes: at most {settings.limits.takes} are allowed", param="takes")
    voice = asked.recording()
    if voice is None and asked.voice_name != DEFAULT_VOICE:
        voice = await _prepared(request, asked.voice_name)
    job = Speak(asked.input, voice, asked.language, takes, asked.seed, asked.speed)
    return await audio_stream(request, job, asked.response_format, events=asked.stream_format == "sse")


@router.post("/convert", response_class=Response)
async def convert(
    request: Request,
    source: Annotated[bytes, File(description="The recording to convert")],
    voice: Annotated[str | None, Form(description="A prepared voice, instead of a reference")] = None,
    reference: Annotated[bytes | None, File(description="A recording of the voice")] = None,
    text: Annotated[str | None, Form(min_length=1, description="The words of the source, if they are known")] = None,
    language: Annotated[Language | None, Form()] = None,
    model: Annotated[str | None, Form()] = None,
    response_format: Annotated[AudioFormat, Form()] = "wav",
) -> Response:
    """Convert a recording to a voice. The response is as long as the recording."""
    _check_model(request, model)
    if (voice is None) == (reference is None):
        raise ApiError(422, "send either voice, the name of a prepared voice, or reference, a recording", param="voice")
    if text is not None:
        _check_text(text, request.app.state.settings.limits.characters, "text")
    target = Voice(reference, is_recording=True) if reference is not None else await _prepared(request, voice or "")
    sound = await sound_of(request, Convert(source, target, text, language))
    request.app.state.metrics.audio.labels("converted").inc(sound.seconds)
    return await audio_file(sound, response_format)


@router.get("/voices")
async def voices(request: Request) -> dict[str, Any]:
    """List the prepared voices."""
    store: VoiceStore | None = request.app.state.voices
    records = await asyncio.to_thread(store.records) if store else []
    return {"object": "list", "data": [_voice(record) for record in records]}


@router.post("/voices", status_code=201)
async def create_voice(
    request: Request,
    name: Annotated[str, Form(max_length=64)],
    consent: Annotated[str, Form(max_length=1000, description="Who agreed that this voice is used")],
    audio_sample: Annotated[bytes, File(description="A recording of the voice")],
) -> dict[str, Any]:
    """Prepare the voice of a recording and keep it; the recording itself is not kept."""
    store = _store(request)
    if not consent.strip() or consent.strip().lower() in ("false", "no", "none", "0"):
        message = "consent: say who agreed that this voice is used; a voice is not kept without consent"
        raise ApiError(422, message, param="consent")
    tokens = await tokens_of(request, PrepareVoice(audio_sample))
    try:
        record = await asyncio.to_thread(store.add, name, tokens.data, consent=consent, token_id=tokens.token_id)
    except ValueError as error:
        raise ApiError(422, f"name: {error}", param="name") from error
    return _voice(record) | {"warnings": list(tokens.warnings)}


@router.delete("/voices/{name}")
async def delete_voice(request: Request, name: str) -> dict[str, Any]:
    """Delete a prepared voice."""
    if not await asyncio.to_thread(_store(request).remove, name):
        raise _no_voice(name)
    return {"id": name, "object": "audio.voice", "deleted": True}


def _voice(record: VoiceRecord) -> dict[str, Any]:
    return {"id": record.name, "object": "audio.voice"} | vars(record)


def _store(request: Request) -> VoiceStore:
    store: VoiceStore | None = request.app.state.voices
    if store is None:
        raise ApiError(403, "this service keeps no voices: start it with --voices FOLDER")
    return store


async def _prepared(request: Request, name: str) -> Voice:
    """Return a prepared voice."""
    store: VoiceStore | None = request.app.state.voices
    data = await asyncio.to_thread(store.tokens, name) if store else None
    if data is None:
        raise _no_voice(name)
    return Voice(data, is_recording=False)


def _no_voice(name: str) -> ApiError:
    message = f"there is no voice {name!r}: GET /v1/audio/voices lists those that there are"
    return ApiError(404, message, param="voice", code="voice_not_found")


def _check_model(request: Request, model: str | None) -> None:
    loaded = request.app.state.engine.loaded
    if model is not None and loaded is not None and model != loaded.speech:
        message = f"there is no speech model {model!r}: GET /v1/models lists those that there are"
        raise ApiError(404, message, param="model", code="model_not_found")


def _check_text(text: str, most: int, param: str) -> None:
    if len(text) > most:
        raise ApiError(413, f"{param}: {len(text)} characters, and the limit is {most}: send it in parts", param=param)
