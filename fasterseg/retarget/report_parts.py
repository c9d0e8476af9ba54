"""What a report is made of: sections of sentences, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head, with a note below."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as SVG, with a note above; a wide one keeps its size and is scrolled."""

    svg: str
    note: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a heading, sentences, then tables and figures.

    Attributes:
        title: the heading.
        lines: sentences below it.
        blocks: what it shows; without any, the first sentence says why.
    """

    title: str
    lines: Sequence[str]
    blocks: Sequence[Table | Figure] = ()


def absent(title: str, stage: str) -> Section:
    """The section of a stage that has left nothing yet."""
    return Section(title, [f"Nothing yet: the stage {stage} has not run."])


def percent(share: float) -> str:
    """A share in [0, 1] as percent."""
    return f"{100 * share:.2f}"


def milliseconds(value: float | None) -> str:
    """Three digits behind the point."""
    return "-" if value is None else f"{value:.3f}"
