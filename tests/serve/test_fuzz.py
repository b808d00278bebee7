"""Malformed requests to a service with tiny models: never a status of 500, and the next good one is served."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from conftest import SPEECH
from serve.test_server import PATIENCE, Service, serving

pytestmark = pytest.mark.slow
MALFORMED = 300
EXAMPLES = 40  #: of each route, by schemathesis


@pytest.fixture(scope="module")
def service(uslm_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fuzz")
    models, codec = uslm_folders
    with serving(folder, "-m", codec, "--models", models, "--voices", folder / "voices") as service:
        yield service


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return data with some bytes changed, removed, repeated or inserted."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        at = (
            chance.randrange(len(changed) + 1)
            if chance.random() < 0.5
            else chance.randrange(min(len(changed), 100) + 1)
        )
        kind = chance.randrange(4)
        if kind == 0:
            changed[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            del changed[at : at + chance.randint(1, len(data))]
        elif kind == 2:
            changed[at:at] = changed[at : at + chance.randint(1, 500)]
        else:
            changed[at:at] = chance.choice([b"\0", b"\xff" * 8, b"{", b"9" * 30, b"\\ud800", b"null", b"NaN"])
    return bytes(changed)


def test_damaged_bodies(service: Service) -> None:
    recording = SPEECH.read_bytes()
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        as_json = client.post("/v1/audio/tokens", files={"file": recording}).content
        tokens = client.post("/v1/audio/tokens", files={"file": recording}, data={"format": "safetensors"}).content
        speech = b'{"input": "hello.", "takes": 1, "seed": 1, "response_format": "opus", "voice": "default"}'
        form = client.build_request("POST", "/v1/audio/tokens", files={"file": recording[:3000]}, data={"layers": ":1"})
        kinds = [
            ("/v1/audio/speech", "application/json", speech),
            ("/v1/audio/decode", "application/json", as_json),
            ("/v1/audio/decode", "application/octet-stream", tokens),
            ("/v1/audio/tokens", form.headers["content-type"], form.read()),
            ("/v1/audio/convert", form.headers["content-type"], form.read()),
            ("/v1/audio/voices", form.headers["content-type"], form.read()),
        ]
        chance, seen = random.Random(0), Counter[int]()
        for i in range(MALFORMED):
            path, kind, body = kinds[i % len(kinds)]
            answer = client.post(path, content=damaged(body, chance), headers={"content-type": kind})
            assert answer.status_code < 500, (path, answer.text)
            if answer.status_code >= 400:
                assert "\n" not in answer.json()["error"]["message"]
            seen[answer.status_code] += 1
        for _ in range(50):
            files = {"file": damaged(recording, chance)}
            answer = client.post("/v1/audio/tokens", files=files)
            assert answer.status_code < 500, answer.text
            seen[answer.status_code] += 1
    print(seen)
    assert seen[200] < MALFORMED / 3 and service.speak().status_code == 200
    assert service.metric("vocable_worker_restarts") == 0


def test_requests_by_the_schema(service: Service) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    seen = Counter[str]()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def check(case: schemathesis.Case) -> None:
                answer = case.call(timeout=PATIENCE)
                seen[f"{case.method} {case.path} {answer.status_code}"] += 1
                assert answer.status_code < 500, (case.path, case.body, answer.text)

            with contextlib.suppress(Unsatisfiable):  # such as malformed parameters of a route that has none
                check()
    print(seen)
    assert sum(seen.values()) > 300 and service.speak().status_code == 200
