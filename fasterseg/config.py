"""TOML and JSON to a frozen dataclass. An unknown key, a missing one, a wrong type: an error."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fasterseg.errors import ConfigError

T = TypeVar("T")


def load_toml(path: Path, kind: type[T]) -> T:
    """Read a TOML file into a dataclass.

    Args:
        path: the file.
        kind: a dataclass whose fields are strings, numbers, booleans, tuples, optional values,
            literals or further dataclasses; a field with a default may be left out.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or does not fit `kind`.
    """
    return from_mapping(read_toml(path), kind, where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as it is.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; whatever cannot be parsed, however deep it nests, is one kind of error.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its lists and objects nest too deeply") from error


def from_mapping(data: Mapping[str, Any], kind: type[T], where: str) -> T:
    """Build a dataclass from parsed TOML or JSON; `where` names the origin in errors.

    Raises:
        ConfigError: see `load_toml`.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a table of keys, found {type(data).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"{where}: unknown key '{key}'{hint} Known: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(data[name], hints[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and (
            field.default_factory is dataclasses.MISSING
        ):
            raise ConfigError(f"{where}: key '{name}' is missing")
    return kind(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            known = ", ".join(repr(a) for a in arguments)
            raise ConfigError(f"{where}: {value!r} is not one of {known}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        return _convert(value, inner[0], where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, found {value!r}")
        return {str(k): _convert(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_mapping(value, hint, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, where)
    wrong_bool = isinstance(value, bool) and hint is not bool
    if isinstance(hint, type) and (not isinstance(value, hint) or wrong_bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{where}: a number of {len(str(value))} digits") from error


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, found {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{where}: expected {len(arguments)} values, found {len(value)}")
    return tuple(
        _convert(v, a, f"{where}[{i}]")
        for i, (v, a) in enumerate(zip(value, arguments, strict=True))
    )
