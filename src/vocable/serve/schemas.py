"""Bodies of requests and responses."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from vocable.lm.synthesis import FASTEST, SLOWEST
from vocable.serve.encoders import AudioFormat
from vocable.serve.errors import ApiError, first_error
from vocable.serve.jobs import Voice

LAYERS = "A slice, such as :1 or 2:4"  #: description of `Layers`
LAYERS_PATTERN = r"^[0-9]{0,3}:[0-9]{0,3}$"
Layers = Annotated[str, Field(pattern=LAYERS_PATTERN)]
Language = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")]


def layer_slice(layers: str | None) -> slice | None:
    """Return the slice of `Layers`; None: all layers."""
    if layers is None:
        return None
    start, stop = layers.split(":")
    return slice(int(start or 0), int(stop) if stop else None)


class VoiceId(BaseModel):
    """A voice by its id, as OpenAI's interface has it."""

    model_config = ConfigDict(extra="forbid")
    id: str


class SpeechRequest(BaseModel):
    """A text to speak: the fields of OpenAI's interface, and those of vocable."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(min_length=1, description="The text")
    model: str | None = Field(None, description="An id of /v1/models")
    voice: str | VoiceId = Field("default", description="A prepared voice; `default` is invented by the model")
    response_format: AudioFormat = "mp3"
    speed: float = Field(1.0, ge=SLOWEST, le=FASTEST)
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="The same seed gives the same speech; without one, requests that wait are spoken in a batch",
    )
    takes: int | None = Field(None, ge=1, description="Versions written of each sentence; the clearest is spoken")
    language: Language | None = None
    ref_audio: str | None = Field(None, description="A recording of the voice: base64 of an audio file")

    @property
    def voice_name(self) -> str:
        """The name of the voice."""
        return self.voice if isinstance(self.voice, str) else self.voice.id

    def recording(self) -> Voice | None:
        """Return the voice of `ref_audio`. Raises ApiError unless it is base64."""
        if self.ref_audio is None:
            return None
        try:
            return Voice(base64.b64decode(self.ref_audio, validate=True), is_recording=True)
        except (binascii.Error, ValueError) as error:
            message = "ref_audio is base64 of an audio file; no address is fetched"
            raise ApiError(422, message, param="ref_audio") from error


#: For OpenAPI: the form has the same fields, and the recording as a file.
SPEECH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/SpeechRequest"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["input"],
                    "properties": {
                        "input": {"type": "string"},
                        "voice": {"type": "string"},
                        "seed": {"type": "integer"},
                        "ref_audio": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters; "" if none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def speech_request(request: Request) -> SpeechRequest:
    """Read a `SpeechRequest` from JSON, or from a form whose `ref_audio` is a file."""
    kind = media_type(request)
    try:
        if kind == "application/json":
            return SpeechRequest.model_validate_json(await request.body())
        if kind != "multipart/form-data":
            raise ApiError(415, "send application/json or multipart/form-data")
        async with request.form(max_files=1, max_fields=20) as form:
            fields: dict[str, Any] = {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) != (name == "ref_audio"):
                    raise ApiError(422, f"{name}: only ref_audio is a file, the other fields are text", param=name)
                fields[name] = base64.b64encode(await value.read()).decode() if isinstance(value, UploadFile) else value
            return SpeechRequest.model_validate(fields)
    except ValidationError as error:
        raise first_error(error.errors()) from error
    except MultiPartException as error:
        raise ApiError(400, f"the form cannot be read: {error.message}") from error
