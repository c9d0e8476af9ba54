"""Colours for classes: named palettes, generated ones, and files."""

from __future__ import annotations

import colorsys
import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Final

from fasterseg.config import parse_json
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.labels import LABEL_SETS, RGB, LabelSet
from fasterseg.registry import unknown

_MOST: Final = 127
_FILE_SUFFIXES: Final = (".csv", ".json", ".toml")


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours that can be given to the classes of any model they fit.

    Attributes:
        name: where they come from, for messages.
        colours: (R, G, B) in [0, 255] each.
        classes: name of the class each colour is for; empty: colours go by position.
        endless: made for any number of classes; the first ones are taken.
    """

    name: str
    colours: tuple[RGB, ...]
    classes: tuple[str, ...] = ()
    endless: bool = False

    def paint(self, labels: LabelSet) -> LabelSet:
        """The same classes in these colours.

        Colours go by class name (capitals, `_` and `-` do not matter) where any name is known
        here, otherwise by position.

        Raises:
            ConfigError: a class has no colour, or there is another number of colours.
        """
        named = dict(zip(map(_plain, self.classes), self.colours, strict=bool(self.classes)))
        missing = [name for name in labels.classes if _plain(name) not in named]
        if not missing:
            colours = tuple(named[_plain(name)] for name in labels.classes)
        elif self.endless:
            colours = self.colours[: len(labels)]
        elif named and len(missing) < len(labels):
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ConfigError(
                f"palette {self.name} ({len(self.colours)} colours) has none for "
                f"{', '.join(missing[:5])}{more} of the model '{labels.name}' ({len(labels)} "
                "classes). Give a file that names them, or take --palette distinct"
            )
        elif len(self.colours) != len(labels):
            raise ConfigError(
                f"palette {self.name} has {len(self.colours)} colours, the model "
                f"'{labels.name}' {len(labels)} classes. Give one colour per class, or take "
                "--palette distinct"
            )
        else:
            colours = self.colours
        return replace(labels, palette=colours)


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def _distinct(index: int) -> RGB:
    """Hues a golden angle apart, so that neighbours differ; lightness parts similar hues."""
    hue = index * 0.6180339887 % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, (0.28, 0.75, 0.42, 0.58)[index % 4], 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def _voc(index: int) -> RGB:
    """The PASCAL VOC rule: bits 0, 3, 6 of the id are the high bits of red, and so on."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colour[channel] |= bit << (7 - place)
    return colour[0], colour[1], colour[2]


PALETTES: Final[Mapping[str, Palette]] = {
    **{name: Palette(name, labels.palette, labels.classes) for name, labels in LABEL_SETS.items()},
    "distinct": Palette("distinct", tuple(map(_distinct, range(_MOST))), endless=True),
    "voc": Palette("voc", tuple(map(_voc, range(_MOST))), endless=True),
}
"""The named palettes: those of the data sets, and generated ones for any number of classes."""


def read_palette(palette: str) -> Palette:
    """A palette by name, or from a file.

    Args:
        palette: a name in `PALETTES`, or a file. CSV: columns r, g, b and, for colours by name,
            class. JSON and TOML: class name -> [r, g, b], or a label set with `classes` and
            `palette`; JSON also a bare list of [r, g, b], by position.

    Raises:
        UnknownNameError: it is neither; the message lists the names.
        ConfigError: the file cannot be read or holds no palette.
    """
    if palette in PALETTES:
        return PALETTES[palette]
    path = Path(palette).expanduser()
    suffix = path.suffix.lower()
    if suffix not in _FILE_SUFFIXES:
        raise UnknownNameError(
            f"{unknown('palette', palette, PALETTES)} Or give a file ending in "
            f"{', '.join(_FILE_SUFFIXES)}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if suffix == ".csv":
            return _from_rows(str(path), list(csv.DictReader(StringIO(text))))
        return _from_data(str(path), parse_json(text) if suffix == ".json" else tomllib.loads(text))
    except OSError as error:
        raise ConfigError(f"cannot read palette {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise ConfigError(f"{path} is not {suffix[1:].upper()}: {error}") from error


def _from_rows(name: str, rows: Sequence[Mapping[str | None, Any]]) -> Palette:
    table = [{str(key).strip().casefold(): value for key, value in row.items()} for row in rows]
    if not table or not {"r", "g", "b"} <= table[0].keys():
        raise ConfigError(f"palette {name} needs columns r, g, b (and class) with a row per class")
    key = next((key for key in ("class", "name") if key in table[0]), None)
    classes = [str(row[key]).strip() for row in table] if key else []
    return _palette(name, [[row["r"], row["g"], row["b"]] for row in table], classes)


def _from_data(name: str, data: Any) -> Palette:
    if isinstance(data, list):
        return _palette(name, data, [])
    if isinstance(data, dict) and {"classes", "palette"} <= data.keys():
        return _palette(name, data["palette"], data["classes"])
    if isinstance(data, dict):
        return _palette(name, list(data.values()), list(data))
    raise ConfigError(f"palette {name} is no table of class = [r, g, b] and no list of colours")


def _palette(name: str, colours: Any, classes: Any) -> Palette:
    if not isinstance(colours, list) or not colours or not isinstance(classes, list):
        raise ConfigError(f"palette {name} holds no colours; give class = [r, g, b] for each class")
    if classes and len(classes) != len(colours):
        raise ConfigError(
            f"palette {name} has {len(classes)} classes and {len(colours)} colours; give one each"
        )
    return Palette(name, tuple(_rgb(name, c) for c in colours), tuple(map(str, classes)))


def _rgb(name: str, colour: Any) -> RGB:
    try:
        red, green, blue = (int(str(channel)) for channel in colour)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise ConfigError(
            f"palette {name}: {colour!r} is not a colour of three whole numbers from 0 to 255"
        )
    return red, green, blue
