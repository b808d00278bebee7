"""An engine of tiny models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from vocable.serve import Settings, create_app


@pytest.fixture(scope="session")
def settings(uslm_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    models, codec = map(str, uslm_folders)
    return Settings(model=codec, models=models, voices=tmp_path_factory.mktemp("voices"), page=False)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of the service in this process; its worker is a process of its own."""
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until a condition is true. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
