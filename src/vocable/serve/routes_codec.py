"""`/v1/audio/tokens` and `/v1/audio/decode`: audio to tokens, and back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response

from vocable.serve.encoders import AudioFormat
from vocable.serve.errors import ApiError
from vocable.serve.jobs import Decode, Encode, TokenFormat
from vocable.serve.responses import audio_file, sound_of, tokens_of
from vocable.serve.schemas import LAYERS, Layers, layer_slice, media_type

router = APIRouter(prefix="/v1/audio")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": _BINARY},
    }
}
_MEDIA_TYPES: dict[TokenFormat, str] = {
    "json": "application/json",
    "safetensors": "application/octet-stream",
    "npy": "application/octet-stream",
}


@router.post("/tokens", response_class=Response)
async def tokens(
    request: Request,
    file: Annotated[bytes, File(description="An audio file")],
    format: Annotated[TokenFormat, Form(description="npy holds the codes alone")] = "json",
    layers: Annotated[Layers | None, Form(description=LAYERS)] = None,
) -> Response:
    """Encode a recording to tokens."""
    found = await tokens_of(request, Encode(file, layer_slice(layers), format))
    request.app.state.metrics.audio.labels("encoded").inc(found.seconds)
    headers = {"X-Token-Id": found.token_id, "X-Audio-Seconds": f"{found.seconds:.3f}"}
    return Response(found.data, media_type=_MEDIA_TYPES[format], headers=headers)


@router.post("/decode", openapi_extra=_BODY, response_class=Response)
async def decode(
    request: Request,
    response_format: AudioFormat = "wav",
    layers: Annotated[Layers | None, Query(description=LAYERS)] = None,
) -> Response:
    """Decode tokens to speech: JSON as `/v1/audio/tokens` gives it, or a .safetensors token file."""
    kind = media_type(request)
    if kind not in ("application/json", "application/octet-stream"):
        raise ApiError(415, "send application/json, or a .safetensors file as application/octet-stream")
    body = await request.body()
    job = Decode(body, "json" if kind == "application/json" else "safetensors", layer_slice(layers))
    sound = await sound_of(request, job)
    request.app.state.metrics.audio.labels("decoded").inc(sound.seconds)
    return await audio_file(sound, response_format)
