"""Import of optional packages, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType


def need(module: str, extra: str, apart: str = "") -> ModuleType:
    """Import and return `module`. If it is missing, raise ImportError with the `pip install` command.

    apart: arguments of `pip install` for packages in no extra, because their own requirements cannot always be met.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        wanted = apart or f"'vocable[{extra}]'"
        raise ImportError(f"{module} is needed here: pip install {wanted}") from error
