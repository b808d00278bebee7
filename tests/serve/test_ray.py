"""The service under Ray Serve: two replicas serve the same speech."""

from __future__ import annotations

import importlib.util

import httpx
import pytest

from serve.conftest import wait_until
from vocable.serve import Settings


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_replicas(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READY", "HEALTH"):  # seconds for Ray's own processes to start on a busy machine
        monkeypatch.setenv(f"RAY_SERVE_PROXY_{name}_CHECK_TIMEOUT_S", "200")
    serve = pytest.importorskip("ray.serve")
    import ray

    from vocable.serve.ray_serve import deployment

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8377})
        serve.run(deployment(settings, replicas=2))
        url = "http://127.0.0.1:8377"
        body = {"input": "one. two.", "takes": 1, "response_format": "wav"}

        def speak() -> httpx.Response:
            return httpx.post(f"{url}/v1/audio/speech", json=body, timeout=120)

        wait_until(lambda: all(httpx.get(f"{url}/health/ready").status_code == 200 for _ in range(20)), 240)
        answers = [speak() for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1 and answers[0].content[:4] == b"RIFF"
        [replicas] = [d.replica_states for d in serve.status().applications["default"].deployments.values()]
        assert replicas == {"RUNNING": 2}
    finally:
        serve.shutdown()
        ray.shutdown()
