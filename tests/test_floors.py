"""The house has floors: a room imports from its own and lower ones alone. docs/design.md says why."""

from __future__ import annotations

import ast
from pathlib import Path

import vocable

FLOORS = [
    {"files", "extras", "containers", "lock", "terminal"},
    {"audio"},
    {"codec"},
    {"corpus"},
    {"semantic"},
    {"training"},
    {"lm"},
    {"conversion"},
    {"evaluation"},
    {"cli", "__main__"},
]
SOURCE = Path(vocable.__file__).parent


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def test_rooms_import_from_lower_floors_only() -> None:
    seen = 0
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name and name.startswith("vocable."):
                    seen += 1
                    assert floor(name.split(".")[1]) <= floor(room), f"{path.name} imports {name}"
    assert seen > 20


def test_typer_and_rich_are_imported_in_cli_alone() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "cli":
            text = path.read_text()
            assert "import typer" not in text and "rich" not in text.replace("enrich", ""), path
