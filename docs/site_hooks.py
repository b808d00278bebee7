"""MkDocs hooks: tables of commands and of config fields from the source, and links to files outside docs/.

`reference/command-line.md` is generated from the commands. A line <!-- fields: MODULE.CLASS --> becomes a table of the
fields of a dataclass, with the comments `#:` beside them.

The pages are read on GitHub too, where a link to a file outside docs/ works. In the site, such a file becomes a page
below repository/: Markdown as it is, YAML and text as a code block, other files as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import os
import re
import typing
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COMMANDS = "reference/command-line.md"
#: Languages of files that are shown as a code block.
LANGUAGES = {".yaml": "yaml", ".json": "json", ".toml": "toml", ".py": "python", ".txt": "text", "": "text"}
FIELDS = re.compile(r"<!-- fields: ([\w.]+)\.(\w+) -->")
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)((?:#[^)\s]*)?)(?=\))")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the command reference, and the files outside docs/ that pages link to, directly or through each other."""
    files.append(File.generated(config, COMMANDS, content=command_reference()))
    waiting = [DOCS / file.src_uri for file in files.documentation_pages() if file.src_uri != COMMANDS]
    added: set[Path] = set()
    while waiting:
        source = waiting.pop()
        for link in LINK.finditer(source.read_text(encoding="utf-8")):
            target = (source.parent / link[1]).resolve()
            if target in added or not target.is_file() or DOCS in target.parents or ROOT not in target.parents:
                continue
            added.add(target)
            files.append(_outside(target, config))
            if target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the tables of fields; turn links between docs/ and the rest of the repository into links of the site."""
    markdown = FIELDS.sub(lambda mark: fields_table(mark[1], mark[2]), markdown)
    source = Path(page.file.abs_src_path or ROOT / page.file.src_uri.removeprefix("repository/"))
    if not source.exists() or page.file.src_uri == COMMANDS:
        return markdown
    folder = PurePosixPath(page.file.src_uri).parent

    def rewritten(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve()
        if not target.is_file() or (DOCS in target.parents and DOCS in source.parents):
            return link[0]
        return os.path.relpath(_site_uri(target), folder).replace(os.sep, "/") + link[2]

    return LINK.sub(rewritten, markdown)


def _site_uri(target: Path) -> str:
    """Where a file of the repository is in the site."""
    if DOCS in target.parents:
        return target.relative_to(DOCS).as_posix()
    name = "repository/" + target.relative_to(ROOT).as_posix()
    return name + ".md" if target.suffix in LANGUAGES else name


def _outside(target: Path, config: MkDocsConfig) -> File:
    uri = _site_uri(target)
    if target.suffix not in LANGUAGES:
        return File.generated(config, uri, abs_src_path=str(target))
    name, text = target.relative_to(ROOT).as_posix(), target.read_text(encoding="utf-8")
    return File.generated(config, uri, content=f"# `{name}`\n\n````{LANGUAGES[target.suffix]}\n{text}\n````\n")


def command_reference() -> str:
    """Return the page that lists every command with its arguments and options, as `--help` prints them."""
    from typer import Context
    from typer.main import get_command

    from vocable.cli.main import app

    root = get_command(app)
    lines = [
        "# Command line",
        "",
        f"{root.help}",
        "",
        "This page is generated from the commands. How files, folders, pipes and exit codes work:",
        "[the command line](../how-to/command-line.md).",
    ]

    def describe(command: Any, context: Any, depth: int) -> None:
        subcommands = getattr(command, "commands", {})
        if depth > 1:
            lines.extend(["", f"{'#' * depth} {context.command_path}", "", command.help or ""])
        if not subcommands:
            usage = command.get_usage(context).removeprefix("Usage: ")
            lines.extend(["", "```text", usage, "```", "", "| argument or option | meaning |", "|---|---|"])
            for parameter in command.get_params(context):
                record = parameter.get_help_record(context)
                if record and parameter.name != "help":
                    name, help_text = (re.sub(r"\s+", " ", text).replace("|", "\\|") for text in record)
                    lines.append(f"| `{name}` | {help_text.replace('<', '&lt;')} |")
        for name, subcommand in subcommands.items():
            describe(subcommand, Context(subcommand, parent=context, info_name=name), min(depth + 1, 3))

    describe(root, Context(root, info_name="vocable"), 1)
    return "\n".join(lines) + "\n"


def fields_table(module: str, name: str) -> str:
    """Return the docstring of a dataclass, and a table of its fields: type, default, meaning."""
    kind = getattr(importlib.import_module(module), name)
    types = typing.get_type_hints(kind, include_extras=True)
    text = "" if (kind.__doc__ or f"{name}(").startswith(f"{name}(") else f"{inspect.getdoc(kind)}\n\n"
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        value = _type_words(types[field.name])
        if "most" in field.metadata:
            value += f", at most {field.metadata['most']:,}"
        default = "required"
        if field.default is not dataclasses.MISSING:
            default = f"`{json.dumps(field.default)}`"  # as YAML has it
        elif field.default_factory is not dataclasses.MISSING:
            default = ""
        rows.append(f"| `{field.name}` | {value} | {default} | {_comment(kind, field.name)} |")
    return text + "\n".join(rows)


def _type_words(kind: Any) -> str:
    """Name a type for those who write YAML."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return ", ".join([_type_words(arguments[0]), *(bound.words for bound in kind.__metadata__)])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        items = arguments[:1] if arguments[-1] is Ellipsis else arguments
        return f"list ({'; '.join(map(_type_words, items))})"
    if arguments:
        return "; or ".join(map(_type_words, arguments))
    if dataclasses.is_dataclass(kind):
        return "section"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "none"}
    return words.get(kind, f"`{kind}`")


def _comment(kind: type, field: str) -> str:
    """The comment `#:` of a field, which may be in a base class, on one line."""
    for owner in kind.__mro__:
        members = _package()[f"{owner.__module__.removeprefix('vocable.')}.{owner.__name__}"].members
        if field in members:
            docstring = members[field].docstring
            text = "" if docstring is None else re.sub(r"\s+", " ", docstring.value).strip().replace("|", "\\|")
            return text[:1].upper() + text[1:]
    return ""


@functools.cache
def _package() -> griffe.Module:
    extensions = griffe.load_extensions("griffe_sphinx")
    package = griffe.load("vocable", search_paths=[ROOT / "src"], extensions=extensions)
    assert isinstance(package, griffe.Module)
    return package
