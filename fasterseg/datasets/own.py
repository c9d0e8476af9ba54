"""Own data sets: a TOML file -> `DatasetSpec`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from fasterseg.config import load_toml
from fasterseg.datasets.coding import Coding, ColourCoding, IdCoding
from fasterseg.datasets.files import Files, Layout
from fasterseg.datasets.layouts import Listing, Patterns
from fasterseg.datasets.spec import SPLITS, DatasetSpec, Split
from fasterseg.errors import ConfigError, UsageError
from fasterseg.labels import RGB, LabelSet
from fasterseg.palettes import PALETTES
from fasterseg.registry import unknown
from fasterseg.types import Size

V = TypeVar("V", int, RGB)

IGNORE_ID: Final = 255


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """Where one split lies, relative to `root`: two patterns, or a list.

    Attributes:
        images: folder or pattern of the pictures, see `layouts.Patterns`.
        labels: folder or pattern of the label maps.
        list: text file of lines IMAGE LABEL, see `layouts.Listing`.
    """

    images: str = ""
    labels: str = ""
    list: str = ""


@dataclass(frozen=True, slots=True)
class OwnDataset:
    """The keys of the file.

    Attributes:
        name: for messages, records and model cards.
        size: usual size of the pictures, "HxW".
        classes: names, in the order of the train ids.
        root: folder of the data set, relative to the file.
        palette: (R, G, B) of each class in pictures; default: the label files' own colours, or
            generated ones.
        ids: class -> its id or ids in the label files; default: its place in `classes`.
        colours: class -> its colour or colours in label files that hold colours.
        ignore: ids or colours in the label files that belong to no class; default: id 255.
        unlisted: what of values that are listed nowhere: "error" or "ignore".
        train: where the split lies.
        val: the same.
        test: the same.
    """

    name: str
    size: str
    classes: tuple[str, ...]
    root: str = "."
    palette: tuple[RGB, ...] = ()
    ids: Mapping[str, Any] = field(default_factory=dict)
    colours: Mapping[str, Any] = field(default_factory=dict)
    ignore: Any = None
    unlisted: Literal["error", "ignore"] = "error"
    train: SplitFiles | None = None
    val: SplitFiles | None = None
    test: SplitFiles | None = None


def read_dataset(file: Path) -> DatasetSpec:
    """A data set described by a TOML file; the files of the data set are not looked at.

    Raises:
        ConfigError: the file cannot be read, or does not describe a data set; the message names
            the key, what it may hold and what to do.
    """
    own = load_toml(file, OwnDataset)
    try:
        coding = _colour_coding(own) if own.colours else _id_coding(own)
        return DatasetSpec(
            name=own.name,
            labels=_labels(own, coding),
            native_size=Size.parse(own.size),
            source=Files(_layouts(own)),
            coding=coding,
            root=file.parent / own.root,
            file=file,
        )
    except UsageError as error:
        raise ConfigError(f"{file}: {error}") from error


def _layouts(own: OwnDataset) -> dict[Split, Layout]:
    tables: dict[Split, SplitFiles | None] = {"train": own.train, "val": own.val, "test": own.test}
    layouts = {s: _layout(s, files) for s in SPLITS if (files := tables[s]) is not None}
    if not layouts:
        raise ConfigError(
            "it names no split; add a table [train] (or [val], [test]) with images and labels, "
            "or with list"
        )
    return layouts


def _layout(split: Split, files: SplitFiles) -> Layout:
    if files.list and not (files.images or files.labels):
        return Listing(files.list)
    if files.images and files.labels and not files.list:
        try:
            return Patterns(files.images, files.labels)
        except ConfigError as error:
            raise ConfigError(f"[{split}]: {error}") from error
    raise ConfigError(
        f"[{split}] needs images and labels (folders or patterns such as images/train/*.jpg), or "
        "list (a text file of lines IMAGE LABEL) alone"
    )


def _labels(own: OwnDataset, coding: Coding) -> LabelSet:
    palette = own.palette
    if not palette and isinstance(coding, ColourCoding):
        palette = tuple(colours[0] for colours in coding.classes)
    ids: tuple[int, ...] = ()
    if isinstance(coding, IdCoding):
        ids = tuple(group[0] for group in coding.classes)
    distinct = PALETTES["distinct"].colours
    return LabelSet(
        name=own.name,
        classes=own.classes,
        palette=palette or tuple(distinct[i % len(distinct)] for i in range(len(own.classes))),
        ignore_id=IGNORE_ID,
        source_ids=ids,
    )


def _id_coding(own: OwnDataset) -> IdCoding:
    if not own.ids:
        groups: tuple[tuple[int, ...], ...] = tuple((i,) for i in range(len(own.classes)))
    else:
        groups = _groups("ids", own.ids, own.classes, _ids)
    ignored = _ids("ignore", own.ignore) if own.ignore is not None else ()
    if own.ignore is None and not any(IGNORE_ID in group for group in groups):
        ignored = (IGNORE_ID,)
    _require_distinct("id", own.classes, groups, ignored)
    return IdCoding(groups, frozenset(ignored), IGNORE_ID, own.unlisted == "ignore")


def _colour_coding(own: OwnDataset) -> ColourCoding:
    if own.ids:
        raise ConfigError("[ids] and [colours] exclude each other; keep what the label files hold")
    groups = _groups("colours", own.colours, own.classes, _colours)
    ignored = _colours("ignore", own.ignore) if own.ignore is not None else ()
    _require_distinct("colour", own.classes, groups, ignored)
    return ColourCoding(groups, frozenset(ignored), IGNORE_ID, own.unlisted == "ignore")


def _groups(
    table: str,
    values: Mapping[str, Any],
    classes: Sequence[str],
    read: Callable[[str, Any], tuple[V, ...]],
) -> tuple[tuple[V, ...], ...]:
    """The values of each class in the label files."""
    for name in values:
        if name not in classes:
            # In TOML whatever follows a table's head belongs to the table.
            hint = f" Keys of the whole file, as {name}, stand above the first [table]."
            misplaced = hint if name in {f.name for f in fields(OwnDataset)} else ""
            raise ConfigError(f"{table}: {unknown('class', name, list(classes))}{misplaced}")
    if missing := [name for name in classes if name not in values]:
        raise ConfigError(
            f"[{table}] lacks {', '.join(missing)}; give every class its {table} in the label "
            "files, or take it out of classes"
        )
    return tuple(read(f"{table}.{name}", values[name]) for name in classes)


def _ids(key: str, value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(_is_byte(i) for i in ids):
        raise ConfigError(f"{key} = {value!r}: expected an id from 0 to 255 or a list, as [0, 7]")
    return tuple(ids)


def _colours(key: str, value: Any) -> tuple[RGB, ...]:
    colours = [value] if isinstance(value, list) and any(map(_is_byte, value)) else value
    if not isinstance(colours, list) or not colours or not all(map(_is_colour, colours)):
        raise ConfigError(
            f"{key} = {value!r}: expected a colour of three values from 0 to 255 or a list of "
            "them, as [128, 64, 128] or [[128, 64, 128], [128, 0, 192]]"
        )
    return tuple((red, green, blue) for red, green, blue in colours)


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_byte, value))


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _require_distinct(
    what: str,
    classes: Sequence[str],
    groups: Sequence[tuple[Hashable, ...]],
    ignored: tuple[Hashable, ...],
) -> None:
    """Raises ConfigError where a value means two things."""
    owner: dict[Hashable, str] = {}
    for name, values in [*zip(classes, groups, strict=True), ("ignore", ignored)]:
        for value in values:
            if value in owner:
                raise ConfigError(
                    f"{what} {value} stands twice: for {owner[value]} and for {name}; a value "
                    "has one meaning"
                )
            owner[value] = name
