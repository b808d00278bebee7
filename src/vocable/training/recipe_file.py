"""Reading recipes: YAML files with a base and overrides, as dataclasses whose annotations say what each value may be.

The values are checked here and not by pydantic: language models import their recipe classes for inference, which does
not need pydantic otherwise, and translating its errors into one line would take more code than these checks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import reprlib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from vocable.extras import need

# ---- what a value may be ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """A condition on a value besides its type, written as an annotation of the field."""

    words: str  #: the condition in words, which complete "must be" in the error message
    holds: Callable[[Any], bool]  #: whether a value of the right type meets the condition


Count = Annotated[int, Bound("at least 1", lambda n: n >= 1)]
Natural = Annotated[int, Bound("at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Bound("at least 0 and less than 2**32", lambda n: 0 <= n < 2**32)]
Positive = Annotated[float, Bound("more than 0", lambda x: x > 0)]
Weight = Annotated[float, Bound("at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Bound("0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Bound("0 to less than 1", lambda x: 0 <= x < 1)]
#: The name of a run's folder in runs/.
Name = Annotated[
    str, Bound("a name of letters, digits, spaces and .+-", lambda s: re.fullmatch(r"\w[\w .+-]*", s) is not None)
]


class Section:
    """Base class of a recipe's frozen dataclasses. The constructor checks every field; ValueError names a wrong one."""

    def __post_init__(self) -> None:
        for name, kind in _field_types(type(self)).items():
            value = build(kind, getattr(self, name), f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)


# ---- from a file to nested dictionaries ------------------------------------------------------------------------------


def read_values(path: str | os.PathLike[str], overrides: list[str]) -> dict[str, Any]:
    """Return a YAML recipe's values, merged with those of its bases, as nested dictionaries.

    overrides: "key.subkey=value", where the value is YAML. Raises ValueError for a file that is missing or is not a
    recipe, for a base that leads back to the recipe itself, and for an override without "=".
    """
    yaml = need("yaml", "train")
    path = Path(path)
    try:
        values = _read_with_base(path)
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator:
                raise ValueError(f"--set takes key=value, not {override!r}")
            *sections, field = key.split(".")
            node = values
            for section in sections:
                node = node.setdefault(section, {})
            node[field] = yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a recipe ({error})") from error
    except RecursionError:
        raise ValueError(f"{path}: not a recipe (it is nested too deeply)") from None
    return values


def _read_with_base(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a recipe's values merged over those of its base. `derived`: the recipes that have this one as a base."""
    yaml = need("yaml", "train")
    if path.resolve() in derived:
        raise ValueError(f"{path}: its base leads back to it")
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe" + (f"; it is the base of {derived[-1]}" if derived else ""))
    try:
        values: dict[str, Any] = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        base = path.parent / values.pop("base") if "base" in values else None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a recipe ({error})") from error
    return _merge(_read_with_base(base, (*derived, path.resolve())), values) if base else values


def _merge(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Merge `values` over `base`: two mappings under one key are merged, any other value replaces that of the base."""
    merged = {
        key: _merge(base[key], values[key])
        for key in values
        if isinstance(base.get(key), dict) and isinstance(values[key], dict)
    }
    return base | values | merged


# ---- from nested dictionaries to dataclasses -------------------------------------------------------------------------


def build(kind: Any, value: Any, where: str) -> Any:
    """Convert `value` to the annotated type `kind`: dictionaries to dataclasses, lists to tuples, numbers to floats.

    A dataclass with a `from_dict` of its own, such as CodecConfig, checks its values itself. Raises ValueError, which
    begins with `where` (the dotted name of the field), for a value of another type or outside its bounds, for NaN
    and infinity, and for an empty list.
    """
    if dataclasses.is_dataclass(kind):
        return _build_section(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        built = build(arguments[0], value, where)
        for bound in arguments[1:]:
            if not bound.holds(built):
                raise ValueError(f"{where} must be {bound.words}, not {reprlib.repr(value)}")
        return built
    if origin is tuple and isinstance(value, (list, tuple)):
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) == len(value) > 0:
            return tuple(build(item, v, where) for item, v in zip(items, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _build_float(value, where)
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # YAML reads the name of a folder such as 2024 as a number
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if arguments and origin not in (tuple, Literal):  # a union: a section for a mapping, or the first member that fits
        if isinstance(value, dict) and (sections := [one for one in arguments if dataclasses.is_dataclass(one)]):
            return build(sections[0], value, where)
        for member in arguments:
            try:
                return build(member, value, where)
            except ValueError:
                continue
    raise ValueError(f"{where}: {reprlib.repr(value)} is not {_in_words(kind)}")


def _build_float(value: int | float | str, where: str) -> float:
    try:
        number = float(value)  # YAML reads 1e-4 as a string
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {reprlib.repr(value)} is not a number") from error
    if not math.isfinite(number):
        raise ValueError(f"{where} must be finite, not {value!r}")
    return number


def _build_section(kind: Any, value: Any, where: str) -> Any:
    """Convert a dictionary with some or all fields of the dataclass `kind` to an instance of it."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a mapping is expected, not {reprlib.repr(value)}")
    if hasattr(kind, "from_dict"):
        try:
            return kind.from_dict(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
    types = _field_types(kind)
    unknown = sorted(map(str, value.keys() - types.keys()))
    if unknown:
        raise ValueError(f"{where}: no field {', '.join(unknown)}; there are {', '.join(types)}")
    try:
        return kind(**{key: build(types[key], item, f"{where}.{key}") for key, item in value.items()})
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"{where}: {error}") from error


def _field_types(section: Any) -> dict[str, Any]:
    """Return the annotated type of each field of a dataclass."""
    return typing.get_type_hints(section, include_extras=True)


def _in_words(kind: Any) -> str:
    """Describe an annotated type for an error message."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return ", ".join([_in_words(arguments[0]), *(bound.words for bound in arguments[1:])])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    if arguments:
        return " or ".join(map(_in_words, arguments))
    if dataclasses.is_dataclass(kind):
        return "a mapping"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return names[kind]


# ---- comparing recipes -----------------------------------------------------------------------------------------------


def changed_fields(recipe: Any, before: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the fields of a recipe (a dataclass) whose values differ from `before`.

    before: an earlier recipe as JSON gives it back. A field that it lacks, because an earlier version wrote it, counts
    as having the field's default.
    """
    for f in dataclasses.fields(recipe):
        now, name = getattr(recipe, f.name), prefix + f.name
        if f.name in before:
            then = before[f.name]
        else:
            then = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if dataclasses.is_dataclass(now) and isinstance(then, dict):
            yield from changed_fields(now, then, f"{name}.")
        elif then is dataclasses.MISSING or _as_json(now) != _as_json(then):
            yield name


def _as_json(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists, dataclasses become dictionaries."""
    return json.loads(json.dumps(value, default=dataclasses.asdict))
