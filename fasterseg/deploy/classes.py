"""`--classes`: names and colours for the classes of a network that brings none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fasterseg.config import parse_json, read_toml
from fasterseg.datasets.own import read_dataset
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.labels import LABEL_SETS, LabelSet
from fasterseg.palettes import PALETTES, read_palette
from fasterseg.registry import unknown

_TABLES: Final = (".csv", ".json", ".toml")
_DATASET_KEYS: Final = frozenset({"name", "size", "classes"})


def read_classes(source: str) -> LabelSet:
    """The classes that a name or a file tells, in the order of the network's channels.

    Args:
        source: name of a label set (`camvid`, `cityscapes`), or a file. Text: one name a line;
            empty lines and those that begin with `#` count for nothing. JSON and TOML: a label
            set, a data set of one's own, a list of names (TOML: `classes = [...]`), or
            name -> [r, g, b]; CSV with columns class, r, g, b.

    Returns:
        Where there are names alone, the known label set of exactly these, else colours that differ
        from one another.

    Raises:
        UnknownNameError: it is neither the name of a label set nor a file.
        ConfigError: the file cannot be read, or names no classes.
    """
    if source in LABEL_SETS:
        return LABEL_SETS[source]
    path = Path(source).expanduser()
    if not path.is_file():
        raise UnknownNameError(
            f"{unknown('label set', source, LABEL_SETS)} Or give a file of class names, one a line"
        )
    suffix = path.suffix.lower()
    if suffix not in _TABLES:
        return _named(path, _lines(path))
    if suffix == ".csv":
        return _coloured(path)
    data = _json(path) if suffix == ".json" else read_toml(path)
    return _from_data(path, data)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> ConfigError:
    reason = (error.strerror or error) if isinstance(error, OSError) else "it is no UTF-8 text"
    return ConfigError(f"cannot read classes {path}: {reason}")


def _from_data(path: Path, data: Any) -> LabelSet:
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return _named(path, data)
    if isinstance(data, Mapping) and "classes" in data:
        if "palette" in data and "size" not in data:
            return _labels(path, data)
        if path.suffix.lower() == ".toml" and data.keys() >= _DATASET_KEYS:
            return read_dataset(path).labels
        names = data["classes"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return _named(path, names)
        raise ConfigError(f"{path}: classes is {names!r}; give a list of names")
    return _coloured(path)


def _labels(path: Path, data: Mapping[str, Any]) -> LabelSet:
    try:
        return LabelSet.from_json({"name": path.stem, **data})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _coloured(path: Path) -> LabelSet:
    """Classes of a palette that names them."""
    palette = read_palette(str(path))
    if not palette.classes:
        raise ConfigError(
            f"{path} holds colours without names; give class = [r, g, b] for each class, or the "
            "names alone, one a line"
        )
    return _labels(path, {"classes": palette.classes, "palette": palette.colours})


def _named(path: Path, names: list[str]) -> LabelSet:
    """Names alone: a known label set where it is one, else colours of their own."""
    if not names:
        raise ConfigError(f"{path} names no classes; give one name a line")
    known = next((k for k in LABEL_SETS.values() if k.classes == tuple(names)), None)
    if known is not None:
        return LABEL_SETS["cityscapes"] if known.name == "bdd100k" else known
    colours = PALETTES["distinct"].colours
    palette = [colours[index % len(colours)] for index in range(len(names))]
    return _labels(path, {"classes": names, "palette": palette})
