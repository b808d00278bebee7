"""An engine of tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocable.serve import Settings


@pytest.fixture(scope="session")
def settings(uslm_folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    models, codec = map(str, uslm_folders)
    return Settings(model=codec, models=models, voices=tmp_path_factory.mktemp("voices"), page=False)
