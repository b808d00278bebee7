"""What the benchmark scripts have in common: the versions that they report, and how they give up."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import NoReturn

import vocable


def versions(*packages: str) -> dict[str, str]:
    """The versions that the figures were made with."""
    own = {"vocable": vocable.__version__, "python": platform.python_version()}
    return own | {package: importlib.metadata.version(package) for package in packages}


def fail(message: str) -> NoReturn:
    """One line on standard error, and exit code 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)
