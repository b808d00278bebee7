"""The house has floors: a room imports from its own and lower ones alone. Files do not import each other in circles,
and private names stay in their room. docs/explanation/design.md says why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vocable

FLOORS = [
    {"files", "extras", "containers", "journal", "lock", "page", "terminal"},
    {"audio", "pcm"},
    {"codec"},
    {"corpus"},
    {"semantic"},
    {"training"},
    {"lm"},
    {"conversion", "conversion_stream", "hf"},
    {"evaluation"},
    {"serve"},
    {"cli", "__main__"},
]
SOURCE = Path(vocable.__file__).parent
FILES = {
    ".".join(["vocable", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(node: ast.AST, for_types: bool = True) -> Iterator[tuple[str, str | None]]:
    """Each import of the package's own, at the head of a file or later: the module, and the name that is taken from it.

    for_types: with those that only type checkers read.
    """
    if not for_types and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    found = [(node.module or "", alias.name) for alias in node.names] if isinstance(node, ast.ImportFrom) else []
    found += [(alias.name, None) for alias in node.names] if isinstance(node, ast.Import) else []
    yield from ((module, name) for module, name in found if module.split(".")[0] == "vocable")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler)):
            yield from imports(child, for_types)


def graph() -> dict[str, set[str]]:
    """Which files each file imports, at its head or later."""
    found: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        taken = {f"{module}.{what}" if f"{module}.{what}" in FILES else module for module, what in imports(tree)}
        found[name] = {other for other in taken if other in FILES}
    return found


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Private names that a file reads from an object or takes from another file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def private_names(tree: ast.AST) -> Iterator[str]:
    """Names that a file defines: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def strangers(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """A room and a private name that it uses, which other rooms define and it does not."""
    defined: dict[str, set[str]] = {}
    for module, tree in trees.items():
        defined.setdefault(room_of(module), set()).update(filter(is_private, private_names(tree)))
    everywhere = set[str]().union(*defined.values())
    return {
        (room_of(module), name)
        for module, tree in trees.items()
        for name in filter(is_private, private_uses(tree))
        if name in everywhere - defined[room_of(module)]
    }


def test_rooms_import_from_lower_floors_only() -> None:
    seen = 0
    for module, tree in TREES.items():
        if room_of(module) == "__init__":
            continue
        for name, _ in imports(tree):
            if name.startswith("vocable."):
                seen += 1
                assert floor(room_of(name)) <= floor(room_of(module)), f"{module} imports {name}"
    assert seen > 250


def test_files_do_not_import_each_other_in_circles() -> None:
    edges = graph()
    assert sum(map(len, edges.values())) > 200
    edges.pop("vocable")  # its names are for users; files that want its version import it
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_private_names_stay_in_their_rooms() -> None:
    assert strangers(TREES) == set()


def test_what_is_hidden_is_found() -> None:
    sources = {
        "vocable.codec.a": "class A:\n    def _hidden(self): self._kept = 1\n_MINE = 2",
        "vocable.lm.b": "from vocable.codec.a import _MINE\n_own = 3\ndef f(a): return a._hidden(), a._kept, a._own",
    }
    trees = {name: ast.parse(source) for name, source in sources.items()}
    assert strangers(trees) == {("lm", "_hidden"), ("lm", "_kept"), ("lm", "_MINE")}
    lazy = "def f():\n    from vocable.a import b\nif typing.TYPE_CHECKING:\n    import vocable.c"
    assert list(imports(ast.parse(lazy), for_types=False)) == [("vocable.a", "b")]


def test_typer_and_rich_are_imported_in_cli_alone() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "cli":
            text = path.read_text()
            assert "import typer" not in text and "rich" not in text.replace("enrich", ""), path
