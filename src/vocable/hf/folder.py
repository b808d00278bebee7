"""`export`: write a codec as a folder that transformers loads, with vocable or without it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path

from vocable.codec.model import SpeechTokenizer
from vocable.files import new_folder
from vocable.hf.features import VocableFeatureExtractor
from vocable.hf.model import VocableModel

#: The classes of transformers' Auto classes, by module.
AUTO_MAP = {
    "AutoConfig": "vocable.hf.configuration.VocableConfig",
    "AutoModel": "vocable.hf.model.VocableModel",
    "AutoModelForAudioTokenization": "vocable.hf.model.VocableModel",
}
FEATURES = "vocable.hf.features.VocableFeatureExtractor"


def export(codec: SpeechTokenizer, folder: str | os.PathLike[str], *, with_code: bool = False) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json to a new folder.

    with_code: also write the modules of vocable that the model needs, so that `trust_remote_code=True` loads it where
    vocable is not installed. Raises ValueError for a partly loaded codec, or if the folder is not empty.
    """
    model = VocableModel.from_codec(codec)
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        VocableFeatureExtractor(sampling_rate=codec.sample_rate).save_pretrained(temporary)
        if with_code:
            _add(temporary / "config.json", {"auto_map": {key: _flat(name) for key, name in AUTO_MAP.items()}})
            _add(temporary / "preprocessor_config.json", {"auto_map": {"AutoFeatureExtractor": _flat(FEATURES)}})
            for module, path in _modules(name.rpartition(".")[0] for name in (*AUTO_MAP.values(), FEATURES)).items():
                (temporary / f"{_flat(module)}.py").write_text(_relative(path), encoding="utf-8")


def _add(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2) + "\n", encoding="utf-8")


def _flat(name: str) -> str:
    """Return the name of a module, or of a class in it, in a folder without subfolders: vocable.hf.model becomes
    vocable_hf_model."""
    module, last = name.rsplit(".", 1)
    return f"{module.replace('.', '_')}.{last}" if last[0].isupper() else name.replace(".", "_")


def _source(module: str) -> Path | None:
    """Return the file of a module of vocable, or None if there is no such module, or it is a package."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return None if found is None or found.submodule_search_locations or not found.origin else Path(found.origin)


def _modules(names: Iterable[str]) -> dict[str, Path]:
    """Return the files of modules and of all modules of vocable that they import, by the modules' names."""
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name not in found and path is not None:
            found[name] = path
            waiting += [module for node in _own_imports(path) for module in _imported(node)]
    return found


def _own_imports(path: Path) -> list[ast.ImportFrom]:
    """Return the statements of a file that import from vocable, at its head or later."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [n for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] == "vocable"]


def _imported(node: ast.ImportFrom) -> list[str]:
    """Return the modules that a statement imports, or imports from."""
    modules = [f"{node.module}.{alias.name}" for alias in node.names]
    return [m for m in modules if _source(m)] or [str(node.module)]


def _relative(path: Path) -> str:
    """Return the source of a file with imports from vocable made relative, for a folder without subfolders."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in sorted(_own_imports(path), key=lambda node: node.lineno, reverse=True):
        indent = " " * node.col_offset
        modules = _imported(node)
        if modules == [node.module]:
            names = ", ".join(f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names)
            statements = [f"from .{_flat(modules[0])} import {names}"]
        else:  # transformers copies only files that it finds in statements of the first form
            statements = [f"from .{_flat(module)} import __doc__ as _" for module in modules]
            for module, alias in zip(modules, node.names, strict=True):
                statements.append(f"from . import {_flat(module)} as {alias.asname or alias.name}")
        lines[node.lineno - 1 : node.end_lineno] = [indent + statement for statement in statements]
    return "\n".join(lines) + "\n"
