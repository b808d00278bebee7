"""The routes, in this process, with tiny models: what they return, and that it is what the package returns."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from conftest import SPEECH, run_command
from vocable import audio
from vocable.codec.tokens import Encoded
from vocable.lm.uslm import USLM
from vocable.serve import Settings

SPOKEN = {"input": "one. two.", "takes": 1, "seed": 3}


def speech(client: TestClient, **fields: object) -> bytes:
    response = client.post("/v1/audio/speech", json=SPOKEN | fields)
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize(
    ("format", "media_type", "magic"),
    [
        ("wav", "audio/wav", b"RIFF"),
        ("flac", "audio/flac", b"fLaC"),
        ("mp3", "audio/mpeg", b""),
        ("opus", "audio/ogg", b"OggS"),
    ],
)
def test_a_stream_has_one_header_and_the_speech_of_the_package(
    client: TestClient, uslm: USLM, tmp_path: Path, format: str, media_type: str, magic: bytes
) -> None:
    response = client.post("/v1/audio/speech", json=SPOKEN | {"response_format": format})
    assert response.status_code == 200 and response.headers["content-type"] == media_type
    assert response.content.startswith(magic) and (not magic or format == "opus" or response.content.count(magic) == 1)
    path = tmp_path / f"speech.{format}"
    path.write_bytes(response.content)
    waveform, rate = audio.read(path)
    expected = uslm.generate("one. two.", takes=1, seed=3).waveform.numpy()
    assert rate == 16_000
    if format in ("wav", "flac"):
        np.testing.assert_allclose(waveform, np.clip(expected, -1, 1), atol=1e-4)
    else:
        assert 0 <= len(waveform) - len(expected) < 4000  # the coder's delay
    if format != "flac":  # soundfile itself reads no FLAC stream whose length is unknown
        assert abs(len(soundfile.read(path)[0]) - len(waveform)) < 4000
    if format != "opus":  # Ogg streams have a random number
        assert speech(client, response_format=format) == response.content
    assert speech(client, response_format=format, seed=4) != response.content


def test_raw_samples_have_the_rate_of_openai(client: TestClient, uslm: USLM) -> None:
    response = client.post("/v1/audio/speech", json=SPOKEN | {"response_format": "pcm"})
    assert response.headers["content-type"] == "audio/pcm;rate=24000" and response.headers["x-sample-rate"] == "24000"
    expected = uslm.generate("one. two.", takes=1, seed=3).waveform
    assert abs(len(response.content) / 2 - len(expected) * 1.5) <= 2


def test_speed(client: TestClient, uslm: USLM) -> None:
    expected = uslm.generate("one. two.", takes=1, seed=3, rate=2.0).waveform
    assert len(speech(client, response_format="wav", speed=2)) == 44 + 2 * len(expected)


def test_events(client: TestClient) -> None:
    response = client.post("/v1/audio/speech", json=SPOKEN | {"response_format": "wav", "stream_format": "sse"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    audio_bytes = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert audio_bytes == speech(client, response_format="wav")


def test_a_recording_gives_the_voice_in_json_and_in_a_form(client: TestClient, uslm: USLM) -> None:
    data = SPEECH.read_bytes()
    json_answer = speech(client, response_format="wav", ref_audio=base64.b64encode(data).decode())
    form = {name: str(value) for name, value in SPOKEN.items()} | {"response_format": "wav"}
    answer = client.post("/v1/audio/speech", data=form, files={"ref_audio": ("voice.flac", data)})
    assert answer.status_code == 200 and answer.content == json_answer
    assert json_answer != speech(client, response_format="wav")


def test_voices_are_created_used_and_deleted(client: TestClient, settings: Settings) -> None:
    sample = {"audio_sample": ("voice.flac", SPEECH.read_bytes())}
    created = client.post("/v1/audio/voices", data={"name": "anna", "consent": "Anna agreed."}, files=sample)
    assert created.status_code == 201, created.text
    assert created.json()["id"] == "anna" and created.json()["consent"] == "Anna agreed."
    assert [voice["id"] for voice in client.get("/v1/audio/voices").json()["data"]] == ["anna"]
    by_name = speech(client, voice="anna", response_format="wav")
    assert by_name == speech(client, voice={"id": "anna"}, response_format="wav")
    assert by_name == speech(client, response_format="wav", ref_audio=base64.b64encode(SPEECH.read_bytes()).decode())
    tokens = Path(settings.voices or "") / "anna.safetensors"
    assert len(Encoded.load(tokens)) == 1, "`vocable tts --voice` reads it"
    again = client.post("/v1/audio/voices", data={"name": "anna", "consent": "yes"}, files=sample)
    assert again.status_code == 422 and "already" in again.json()["error"]["message"]
    assert client.delete("/v1/audio/voices/anna").json()["deleted"] is True
    assert client.delete("/v1/audio/voices/anna").status_code == 404
    assert not list(Path(settings.voices or "").iterdir())


@pytest.mark.parametrize("name", ["../anna", "a/b", "", ".", "A", "default", "x" * 65, "ann\u00e4", "con", "a\x00"])
def test_names_of_voices_are_no_paths(client: TestClient, settings: Settings, name: str) -> None:
    sample = {"audio_sample": ("voice.flac", SPEECH.read_bytes())}
    response = client.post("/v1/audio/voices", data={"name": name, "consent": "yes"}, files=sample)
    assert response.status_code == 422 and not list(Path(settings.voices or "").iterdir())
    assert client.post("/v1/audio/speech", json=SPOKEN | {"voice": name or ".."}).status_code in (200, 404)


def test_no_voice_without_consent(client: TestClient) -> None:
    for consent in ({}, {"consent": " "}, {"consent": "false"}):
        sample = {"audio_sample": ("voice.flac", SPEECH.read_bytes())}
        response = client.post("/v1/audio/voices", data={"name": "anna"} | consent, files=sample)
        assert response.status_code == 422 and "consent" in response.json()["error"]["message"]


def test_tokens_are_those_of_the_command_and_decode_to_speech(
    client: TestClient, uslm: USLM, uslm_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    file = {"file": ("speech.flac", SPEECH.read_bytes())}
    assert run_command("encode", SPEECH, "-o", tmp_path / "s.safetensors", "-m", uslm_folders[1]) == 0
    by_command = (tmp_path / "s.safetensors").read_bytes()
    response = client.post("/v1/audio/tokens", data={"format": "safetensors"}, files=file)
    assert response.status_code == 200 and response.content == by_command
    as_json = client.post("/v1/audio/tokens", files=file)
    codes = Encoded.from_bytes(by_command).codes[0].tolist()
    assert as_json.json()["codes"] == codes and as_json.headers["x-token-id"] == uslm.codec.token_id
    npy = client.post("/v1/audio/tokens", data={"format": "npy", "layers": "1:3"}, files=file)
    assert np.load(io.BytesIO(npy.content)).tolist() == codes[1:3]
    octets = {"content-type": "application/octet-stream"}
    first = client.post("/v1/audio/decode", content=as_json.content, headers={"content-type": "application/json"})
    second = client.post("/v1/audio/decode", content=by_command, headers=octets)
    assert first.status_code == second.status_code == 200 and first.content == second.content
    waveform, rate = soundfile.read(io.BytesIO(first.content), dtype="float32")
    expected = uslm.codec.decode(Encoded.from_bytes(by_command)).waveform[0].numpy()
    assert rate == 16_000
    np.testing.assert_allclose(waveform, np.clip(expected, -1, 1), atol=1e-4)
    one_layer = client.post("/v1/audio/decode?layers=:1&response_format=flac", content=by_command, headers=octets)
    assert one_layer.content[:4] == b"fLaC" and len(soundfile.read(io.BytesIO(one_layer.content))[0]) == len(waveform)


def test_conversion(client: TestClient) -> None:
    data = SPEECH.read_bytes()
    files = {"source": ("a.flac", data), "reference": ("b.flac", data)}
    response = client.post("/v1/audio/convert", files=files)
    assert response.status_code == 200 and response.headers["content-type"] == "audio/wav"
    assert len(soundfile.read(io.BytesIO(response.content))[0]) == soundfile.info(SPEECH).frames
    neither = client.post("/v1/audio/convert", files={"source": ("a.flac", data)})
    assert neither.status_code == 422 and "either voice" in neither.json()["error"]["message"]


def test_models_health_and_metrics(client: TestClient, uslm: USLM) -> None:
    speaks, codec = client.get("/v1/models").json()["data"]
    assert speaks["kind"] == "speech" and codec["id"] == uslm.codec.id and codec["token_id"] == uslm.codec.token_id
    assert speech(client, model=speaks["id"], response_format="wav")
    unknown = client.post("/v1/audio/speech", json=SPOKEN | {"model": "tts-1"})
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health").json() == client.get("/health/ready").json() == {"status": "ready"}
    text = client.get("/metrics").text
    for line in (
        'vocable_requests_total{method="POST",route="/v1/audio/speech",status="200"}',
        "vocable_waiting_jobs 0.0",
    ):
        assert line in text
    assert 'vocable_audio_seconds_total{kind="spoken"}' in text
