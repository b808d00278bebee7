"""Optional needs: imported where they are used, and named with their extra when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def need(module: str, extra: str, apart: str = "") -> ModuleType:
    """Import `module`, or raise ImportError that says what brings it: the extra, or else what `pip install` takes for
    packages that are installed apart, because their own needs cannot be met everywhere."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        wanted = apart or f"'vocable[{extra}]'"
        raise ImportError(f"{module} is needed here: pip install {wanted}") from error
