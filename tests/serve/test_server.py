"""`vocable serve` as a process: real clients, signals, deaths, and many requests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import soundfile

from conftest import ROOT, SPEECH
from serve.conftest import wait_until

pytestmark = pytest.mark.slow
PATIENCE = 240.0  #: seconds for an answer: the machine may be busy
TEXT = "The first sentence is short. The second one is here as well. And this is the third."
SPOKEN = 'vocable_audio_seconds_total{kind="spoken"}'
BATCHES = "vocable_batch_jobs_count"
CANCELLED = 'vocable_requests_total{method="POST",route="/v1/audio/speech",status="499"}'


class Service:
    """A running `vocable serve`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        found = None

        def started() -> bool:
            nonlocal found
            found = re.search(r"running on (http://\S+)", log.read_text())
            return found is not None or process.poll() is not None

        wait_until(started, PATIENCE)
        assert found, log.read_text()
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        wait_until(lambda: self.client.get("/health/ready").status_code == 200, PATIENCE)

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [p for p in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(p.cmdline())]

    def memory(self) -> int:
        """Bytes of the service and its workers."""
        return sum(p.memory_info().rss for p in [psutil.Process(self.process.pid), *self.workers()])

    def metric(self, name: str) -> float:
        """The value of a metric."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def speak(self, **fields: object) -> httpx.Response:
        """Speak a text."""
        body = {"input": "Good morning.", "takes": 1, "response_format": "wav"} | fields
        return self.client.post("/v1/audio/speech", json=body)


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[Service]:
    log = folder / "log"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vocable", "serve", "--port", "0", "--no-page", *map(str, options)]
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        yield Service(process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(uslm_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with tiny models."""
    models, codec = uslm_folders
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, "-m", codec, "--models", models, "--voices", folder / "voices") as service:
        yield service


@pytest.mark.skipif(not (ROOT / "models" / "uslm").is_dir(), reason="the shipped language models are not here")
def test_the_client_of_openai_creates_and_streams(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        create_and_stream(service, tmp_path)


def create_and_stream(service: Service, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
    model = next(m.id for m in client.models.list() if m.id.startswith("uslm"))
    asked = {"model": model, "voice": "default", "input": TEXT, "timeout": PATIENCE, "extra_body": {"takes": 1}}
    whole = client.audio.speech.create(**asked, response_format="wav")
    whole.write_to_file(tmp_path / "whole.wav")
    with client.audio.speech.with_streaming_response.create(**asked, response_format="wav") as response:
        response.stream_to_file(tmp_path / "streamed.wav")
    waveform, rate = soundfile.read(tmp_path / "streamed.wav")
    assert rate == 16_000 and len(waveform) > 3 * rate and abs(waveform).max() > 0.05
    assert (tmp_path / "whole.wav").read_bytes() == (tmp_path / "streamed.wav").read_bytes(), "one seed, the same bytes"
    client.audio.speech.create(**asked).write_to_file(tmp_path / "default.mp3")  # OpenAI's default format
    assert soundfile.info(tmp_path / "default.mp3").duration > 3
    with pytest.raises(openai.NotFoundError, match="no voice 'alloy'"):
        client.audio.speech.create(**asked | {"voice": "alloy"})


def test_the_first_byte_comes_before_the_second_sentence_is_spoken(service: Service) -> None:
    body = {"input": TEXT, "takes": 4, "response_format": "pcm"}
    begun, times = time.monotonic(), []
    with httpx.stream("POST", f"{service.url}/v1/audio/speech", json=body, timeout=PATIENCE) as response:
        for _ in response.iter_raw():
            if not times:
                spoken_at_first = service.metric(SPOKEN)
            times.append(time.monotonic() - begun)
    assert times[0] < 0.6 * times[-1], times
    assert service.metric(SPOKEN) > spoken_at_first, "a later sentence came after the first byte"


def test_a_client_that_leaves_frees_the_worker(service: Service) -> None:
    assert service.speak(input="No.").status_code == 200
    begun = time.monotonic()
    assert service.speak(input="No.").status_code == 200
    idle = time.monotonic() - begun
    body = {"input": "Yes. " * 200, "takes": 1, "response_format": "pcm"}
    with httpx.stream("POST", f"{service.url}/v1/audio/speech", json=body, timeout=PATIENCE) as response:
        next(response.iter_raw())
    begun = time.monotonic()
    assert service.speak(input="No.").status_code == 200
    assert time.monotonic() - begun < 1 + 5 * idle, "the sentence that ran, and this one"
    before = service.metric(CANCELLED)
    with pytest.raises(httpx.ReadTimeout):  # leaves before the first sentence is there
        httpx.post(f"{service.url}/v1/audio/speech", json={"input": TEXT, "takes": 16}, timeout=0.2)
    wait_until(lambda: service.metric(CANCELLED) == before + 1)
    assert service.speak().status_code == 200


def test_a_worker_that_is_killed_is_replaced(service: Service) -> None:
    batches = service.metric(BATCHES)
    [worker] = service.workers()
    with ThreadPoolExecutor() as pool:
        worker.suspend()  # so that the request is in flight when the worker dies
        running = pool.submit(service.speak)
        wait_until(lambda: service.metric(BATCHES) > batches)
        worker.kill()
        answer = running.result()
    assert answer.status_code == 503 and answer.headers["retry-after"], answer.text
    assert service.speak().status_code == 200, "it waits for the next worker"
    assert service.metric("vocable_worker_restarts") == 1


def test_sigterm_finishes_what_runs_and_takes_nothing_new(uslm_folders: tuple[Path, Path], tmp_path: Path) -> None:
    models, codec = uslm_folders
    with serving(tmp_path, "-m", codec, "--models", models) as service, ThreadPoolExecutor() as pool:
        [worker] = service.workers()
        worker.suspend()
        running = pool.submit(service.speak, input=TEXT)
        wait_until(lambda: service.metric(BATCHES) == 1)
        service.process.terminate()
        wait_until(lambda: "Shutting down" in service.log.read_text())
        with pytest.raises(httpx.ConnectError):
            service.speak()
        worker.resume()
        assert running.result().status_code == 200 and len(running.result().content) > 16_000
        assert service.process.wait(PATIENCE) == 143
        assert "Traceback" not in service.log.read_text()


def test_sigterm_does_not_wait_for_open_pages(uslm_folders: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="pip install 'vocable[serve]'")
    models, codec = uslm_folders
    with (
        serving(tmp_path, "-m", codec, "--models", models, "--page", "--grace", 120) as service,
        httpx.stream("GET", f"{service.url}/gradio_api/heartbeat/page", timeout=PATIENCE) as connection,
    ):
        next(connection.iter_raw())
        service.process.terminate()
        assert service.process.wait(60) == 143
    assert "Traceback" not in service.log.read_text()


def test_models_that_are_missing_end_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vocable", "serve", "--port", "0", "-m", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE)
    assert done.returncode == 2 and str(tmp_path) in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def test_memory_stays_flat(service: Service) -> None:
    recording = SPEECH.read_bytes()
    httpx.post(
        f"{service.url}/v1/audio/voices", data={"name": "v", "consent": "yes"}, files={"audio_sample": recording}
    )

    def requests(count: int) -> None:
        with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
            for i in range(count):
                tokens = client.post("/v1/audio/tokens", files={"file": recording})
                assert tokens.status_code == 200
                assert client.post("/v1/audio/decode", json=tokens.json()).status_code == 200
                if i % 20 == 0:
                    body = {"input": "Yes.", "voice": "v", "takes": 1}
                    assert client.post("/v1/audio/speech", json=body).status_code == 200

    requests(150)
    before = service.memory()
    requests(980)  # 2,009 requests
    assert abs(service.memory() / before - 1) < 0.05, (before, service.memory())
