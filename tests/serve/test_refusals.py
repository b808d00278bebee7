"""What the service refuses: one line in OpenAI's form, a status below 500, and the next good request is served."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from conftest import run_command
from serve.conftest import wait_until
from vocable.serve import Limits, Settings, create_app


def wav(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((round(seconds * rate), channels)), rate, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def limited(settings: Settings) -> Iterator[TestClient]:
    """A service with small limits."""
    limits = Limits(bytes=300_000, seconds=5, characters=50, takes=2)
    app = create_app(dataclasses.replace(settings, limits=limits, voices=None))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health").status_code == 200)
        yield client


JSON, OCTETS = {"content-type": "application/json"}, {"content-type": "application/octet-stream"}
DEEP = b"[" * 100_000
CASES: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "no text": (422, "input", "/v1/audio/speech", {"json": {}}),
    "an empty text": (422, "input", "/v1/audio/speech", {"json": {"input": ""}}),
    "a text without words": (422, "letter or a digit", "/v1/audio/speech", {"json": {"input": "..."}}),
    "a text too long": (413, "51 characters", "/v1/audio/speech", {"json": {"input": "a" * 51}}),
    "too many takes": (422, "takes", "/v1/audio/speech", {"json": {"input": "a", "takes": 3}}),
    "an unknown field": (422, "instructions", "/v1/audio/speech", {"json": {"input": "a", "instructions": "b"}}),
    "an unknown format": (
        422,
        "response_format",
        "/v1/audio/speech",
        {"json": {"input": "a", "response_format": "aac"}},
    ),
    "another speed": (422, "speed", "/v1/audio/speech", {"json": {"input": "a", "speed": 3}}),
    "a seed out of range": (422, "seed", "/v1/audio/speech", {"json": {"input": "a", "seed": 2**63}}),
    "a seed of a thousand digits": (
        422,
        "",
        "/v1/audio/speech",
        {"content": b'{"input":"a","seed":1' + b"0" * 5000 + b"}", "headers": JSON},
    ),
    "an unknown voice": (404, "no voice", "/v1/audio/speech", {"json": {"input": "a", "voice": "alloy"}}),
    "an address as a recording": (
        422,
        "no address is fetched",
        "/v1/audio/speech",
        {"json": {"input": "a", "ref_audio": "http://127.0.0.1/x"}},
    ),
    "a recording that is none": (
        422,
        "not readable",
        "/v1/audio/speech",
        {"json": {"input": "a", "ref_audio": base64.b64encode(b"x" * 99).decode()}},
    ),
    "half a surrogate": (422, "", "/v1/audio/speech", {"content": b'{"input":"\\ud800"}', "headers": JSON}),
    "no UTF-8": (422, "", "/v1/audio/speech", {"content": b'{"input":"\xff"}', "headers": JSON}),
    "deep JSON": (422, "", "/v1/audio/speech", {"content": DEEP, "headers": JSON}),
    "plain text": (
        415,
        "application/json",
        "/v1/audio/speech",
        {"content": b"hello", "headers": {"content-type": "text/plain"}},
    ),
    "a form without an end": (
        422,
        "input",
        "/v1/audio/speech",
        {"content": b"--x\r\nContent", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ),
    "a form without a boundary": (
        400,
        "",
        "/v1/audio/speech",
        {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
    ),
    "no file": (422, "file", "/v1/audio/tokens", {"data": {"layers": ":1"}}),
    "text as a file": (422, "not readable", "/v1/audio/tokens", {"data": {"file": "text"}}),
    "a file that is no audio": (422, "not readable", "/v1/audio/tokens", {"files": {"file": b"RIFF" * 30}}),
    "an empty file": (422, "", "/v1/audio/tokens", {"files": {"file": b""}}),
    "too many bytes": (413, "300000 bytes", "/v1/audio/tokens", {"files": {"file": bytes(300_001)}}),
    "too many seconds": (413, "more than 5 s", "/v1/audio/tokens", {"files": {"file": wav(6)}}),
    "seconds in a header": (422, "cut short", "/v1/audio/tokens", {"files": {"file": wav(4)[:-1000]}}),
    "a rate that no speech has": (422, "Hz", "/v1/audio/tokens", {"files": {"file": wav(1, rate=100)}}),
    "layers as a number": (422, "layers", "/v1/audio/tokens", {"files": {"file": wav(1)}, "data": {"layers": "1"}}),
    "layers that the codec lacks": (
        422,
        "layers",
        "/v1/audio/tokens",
        {"files": {"file": wav(1)}, "data": {"layers": "1:9"}},
    ),
    "tokens that are none": (422, "tokens", "/v1/audio/decode", {"content": b"x" * 50, "headers": OCTETS}),
    "no tokens": (422, "tokens", "/v1/audio/decode", {"content": b"", "headers": OCTETS}),
    "JSON that is no tokens": (422, "tokens", "/v1/audio/decode", {"json": {"codes": [[1]]}}),
    "deep tokens": (422, "tokens", "/v1/audio/decode", {"content": DEEP, "headers": JSON}),
    "voices where none are kept": (
        403,
        "--voices",
        "/v1/audio/voices",
        {"files": {"audio_sample": wav(1)}, "data": {"name": "a", "consent": "yes"}},
    ),
    "another route": (404, "", "/v1/audio/sing", {"json": {}}),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_requests_get_one_line(limited: TestClient, case: str) -> None:
    status, message, path, arguments = CASES[case]
    response = limited.post(path, **arguments)
    error = response.json()["error"]
    assert response.status_code == status, error
    assert message in error["message"] and "\n" not in error["message"] and "/tmp" not in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_after_all_of_them_the_next_is_served(limited: TestClient) -> None:
    assert limited.post("/v1/audio/speech", json={"input": "good.", "takes": 1}).status_code == 200


def test_a_body_without_a_length_is_cut_off(limited: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 50_000
            yield bytes(50_000)

    response = limited.post("/v1/audio/decode", content=endless(), headers=OCTETS)
    assert response.status_code == 413


def test_tokens_over_the_limit_of_seconds(limited: TestClient, uslm: Any) -> None:
    clip = uslm.codec.encode(np.zeros(16_000 * 6, np.float32))
    assert limited.post("/v1/audio/decode", content=clip.to_bytes(), headers=OCTETS).status_code == 413
    two = uslm.codec.encode(np.zeros((2, 16_000), np.float32))
    response = limited.post("/v1/audio/decode", content=two.to_bytes(), headers=OCTETS)
    assert response.status_code == 422 and "one clip" in response.json()["error"]["message"]
    other = dataclasses.replace(uslm.codec.encode(np.zeros(16_000, np.float32)), token_id="other")
    response = limited.post("/v1/audio/decode", content=other.to_bytes(), headers=OCTETS)
    assert response.status_code == 422 and "other" in response.json()["error"]["message"]


def application(settings: Settings, **changes: Any) -> Callable[..., httpx.Response]:
    """A service whose models are not loaded, as a function that sends requests."""
    client = TestClient(create_app(dataclasses.replace(settings, **changes)), base_url="http://127.0.0.1")
    return client.request


def test_a_key_is_needed_everywhere_but_at_health(settings: Settings) -> None:
    send = application(settings, api_key="secret", host="0.0.0.0")
    assert send("GET", "/health/live").status_code == 200
    for path in ("/v1/models", "/metrics", "/", "/openapi.json", "/healthy"):
        answer = send("GET", path)
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    for wrong in ("Bearer other", "Bearer", "secret", "Basic ???", "Bearer s\u00e9cret".encode("latin-1")):
        assert send("GET", "/v1/models", headers={"authorization": wrong}).status_code == 401
    for right in ("Bearer secret", "Basic " + base64.b64encode(b"user:secret").decode()):
        assert send("GET", "/v1/models", headers={"authorization": right}).status_code == 200


def test_pages_of_other_sites_are_refused(settings: Settings) -> None:
    send = application(settings)
    for headers in ({"origin": "https://example.com"}, {"origin": "null"}, {"host": "example.com"}, {"host": "["}):
        assert send("GET", "/v1/models", headers=headers).status_code == 403
    assert send("GET", "/v1/models", headers={"origin": "http://127.0.0.1"}).status_code == 200
    assert application(settings, no_auth=True)("GET", "/v1/models", headers={"host": "example.com"}).status_code == 200


def test_before_the_models_are_loaded(settings: Settings) -> None:
    send = application(settings)
    assert send("GET", "/health/live").status_code == 200
    assert send("GET", "/health/ready").status_code == send("GET", "/health").status_code == 503
    answer = send("POST", "/v1/audio/speech", json={"input": "hello"})
    assert answer.status_code == 503 and answer.headers["retry-after"]


def test_a_full_queue_is_429(settings: Settings) -> None:
    app = create_app(settings)
    engine = app.state.engine
    with TestClient(app, base_url="http://127.0.0.1") as client:
        wait_until(lambda: engine.ready)
        engine.waiting.capacity = 0
        answer = client.post("/v1/audio/speech", json={"input": "hello"})
        assert (
            answer.status_code == 429
            and answer.headers["retry-after"]
            and answer.json()["error"]["code"] == "queue_full"
        )


def test_the_command_asks_for_a_key_off_the_loopback_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("serve", "--host", "0.0.0.0") == 2
    assert "--api-key" in capsys.readouterr().err
    with pytest.raises(ValueError, match="other machines"):
        Settings(host="example.com")
    assert Settings(host="::1").is_local and Settings(host="127.0.0.2").is_local
