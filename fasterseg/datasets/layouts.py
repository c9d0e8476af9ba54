"""How data sets lay out their files: matching patterns, or lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fasterseg.datasets.spec import Pair
from fasterseg.errors import ConfigError, SourceError

PICTURES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of pictures where a pattern leaves the ending open."""

_WILDCARD: Final = re.compile(r"\*\*/|\*")


@dataclass(frozen=True)
class Patterns:
    """Pictures and label maps that match two patterns; what the wildcards stand for pairs them.

    `*` is any part of one name, `**/` any folders between. A pattern without a wildcard is a
    folder: all pictures in it, or all its `.png` label maps.

    Attributes:
        images: relative to the folder of the data set; an open ending (`*`) takes `PICTURES`.
        labels: the same for the label maps, with as many wildcards.

    Raises:
        ConfigError: one has another number of wildcards than the other.
    """

    images: str
    labels: str

    def __post_init__(self) -> None:
        if not _WILDCARD.search(self.images):
            object.__setattr__(self, "images", f"{self.images.rstrip('/')}/*")
        if not _WILDCARD.search(self.labels):
            object.__setattr__(self, "labels", f"{self.labels.rstrip('/')}/*.png")
        for text in (self.images, self.labels):
            if text.startswith("/") or "**" in re.sub(r"(^|/)\*\*(?=/)", "", text):
                raise ConfigError(
                    f"'{text}' is no pattern: it is relative to the folder of the data set, and "
                    "** stands alone between two slashes, as in images/**/*.jpg"
                )
        counts = [len(_WILDCARD.findall(text)) for text in (self.images, self.labels)]
        if counts[0] != counts[1]:
            raise ConfigError(
                f"images = '{self.images}' has {counts[0]} wildcards, labels = '{self.labels}' "
                f"{counts[1]}; both need the same ones, as in images/*.jpg and labels/*.png"
            )

    def pairs(self, root: Path) -> list[Pair]:
        """See `Layout.pairs`."""
        found = list(_matches(root, self.images))
        if not found:
            raise SourceError(
                f"{root / self.images} matches no pictures; is {root} the folder of this data set?"
            )
        stems = Counter(parts[-1] for _, parts in found)
        return [
            Pair(
                parts[-1] if stems[parts[-1]] == 1 else "".join(parts),
                path,
                root / _filled(self.labels, parts),
            )
            for path, parts in found
        ]

    def unpaired(self, root: Path) -> list[Path]:
        """See `Layout.unpaired`."""
        known = {parts for _, parts in _matches(root, self.images)}
        return [path for path, parts in _matches(root, self.labels) if parts not in known]


def _matches(root: Path, pattern: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Files that match, in order, with what each wildcard stands for."""
    open_ended = pattern.endswith("*")
    regex = re.compile("".join(_regex_parts(pattern)))
    for path in _globbed(root, re.sub(r"[\[?]", r"[\g<0>]", pattern)):
        if open_ended and path.suffix.lower() not in PICTURES:
            continue
        relative = path.relative_to(root)
        match = regex.fullmatch((relative.with_suffix("") if open_ended else relative).as_posix())
        if match is not None:
            yield path, match.groups()


def _globbed(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(root.glob(pattern))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(
            f"cannot look for {pattern} in {root}: {reason}; check the name of the folder"
        ) from error


def _regex_parts(pattern: str) -> Iterator[str]:
    position = 0
    for wildcard in _WILDCARD.finditer(pattern):
        yield re.escape(pattern[position : wildcard.start()])
        yield "((?:[^/]+/)*)" if wildcard[0] == "**/" else "([^/]*)"
        position = wildcard.end()
    yield re.escape(pattern[position:])


def _filled(pattern: str, parts: tuple[str, ...]) -> str:
    """The pattern with its wildcards replaced."""
    rest = iter(parts)
    return _WILDCARD.sub(lambda _: next(rest), pattern)


@dataclass(frozen=True)
class Listing:
    """A text file with a picture and its label map per line, relative to the data set's folder.

    White space parts the two, or a tab where names hold spaces. Empty lines are skipped.

    Attributes:
        file: the list, relative to the folder of the data set.
        prefix: removed from the front of each path.
    """

    file: str
    prefix: str = ""

    def pairs(self, root: Path) -> list[Pair]:
        """See `Layout.pairs`."""
        listing = root / self.file
        rows = []
        for number, line in _lines(listing):
            parts = [p.strip() for p in line.split("\t")] if "\t" in line else line.split()
            if len(parts) != 2:
                raise SourceError(f"{listing}, line {number}: '{line}' is not IMAGE LABEL")
            rows.append([part.removeprefix(self.prefix) for part in parts])
        stems = Counter(Path(image).stem for image, _ in rows)
        return [
            Pair(
                Path(image).stem if stems[Path(image).stem] == 1 else image,
                root / image,
                root / label,
            )
            for image, label in rows
        ]

    def unpaired(self, root: Path) -> list[Path]:
        """None: a list says what belongs."""
        return []


@dataclass(frozen=True)
class CamvidOriginals:
    """CamVid as its authors published it, split by lists of frames.

    A line names a frame (`0001TP_006690`), or is one of the lists of the 360x480 version, whose
    paths end in the frame.

    Attributes:
        file: the list, relative to the folder of the data set.
    """

    file: str

    def pairs(self, root: Path) -> list[Pair]:
        """See `Layout.pairs`."""
        names = [Path(line.split()[0]).stem for _, line in _lines(root / self.file)]
        return [
            Pair(
                name,
                root / "701_StillsRaw_full" / f"{name}.png",
                root / "LabeledApproved_full" / f"{name}_L.png",
            )
            for name in names
        ]

    def unpaired(self, root: Path) -> list[Path]:
        """None: the folders hold all splits."""
        return []


def _lines(listing: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SourceError(
            f"cannot read the list {listing}: {error.strerror or error}; is {listing.parent} the "
            "folder of this data set?"
        ) from error
    except ValueError as error:
        raise SourceError(f"the list {listing} is no UTF-8 text: {error}") from error
    kept = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not kept:
        raise SourceError(f"{listing} names no pictures")
    return kept
