"""Faces of traffic signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fasterseg.streets.kit import SIGN
from fasterseg.streets.light import Colour, Vector
from fasterseg.streets.mesh import Modeller, disc

_WHITE = Colour(226, 230, 232)
_RED = Colour(42, 36, 196)
_BLUE = Colour(168, 92, 28)
_BLACK = Colour(34, 33, 32)
_YELLOW = Colour(40, 190, 235)
_GREEN = Colour(72, 120, 24)


class Plate:
    """A plate of `size` metres half across, and what is painted on it."""

    def __init__(self, model: Modeller, centre: Vector, size: float, *, faces_us: bool) -> None:
        self._model = model
        self._centre = centre
        self._size = size
        self._faces_us = faces_us

    def _fill(self, outline: list[tuple[float, float]], colour: Colour) -> None:
        x, y, z = self._centre
        corners = [(x + u * self._size, y + v * self._size, z) for u, v in outline]
        self._model.face(corners, colour if self._faces_us else Colour(140, 142, 142), SIGN)

    def _ring(self, radius: float, corners: int, colour: Colour) -> None:
        outline = [(x, y) for x, y, _ in disc((0, 0, 0), radius, corners, "back")]
        self._fill(outline, colour)

    def _bar(self, left: float, low: float, right: float, high: float, colour: Colour) -> None:
        self._fill([(left, low), (left, high), (right, high), (right, low)], colour)

    def limit(self) -> None:
        """Red ring with a number."""
        self._ring(1.0, 18, _RED)
        self._ring(0.76, 18, _WHITE)
        self._bar(-0.42, -0.36, -0.26, 0.36, _BLACK)
        self._bar(-0.42, 0.22, -0.1, 0.36, _BLACK)
        self._bar(-0.42, -0.36, -0.1, -0.22, _BLACK)
        self._bar(0.08, -0.36, 0.42, 0.36, _BLACK)
        self._bar(0.2, -0.2, 0.3, 0.2, _WHITE)

    def forbidden(self) -> None:
        """Red disc with a white bar."""
        self._ring(1.0, 18, _RED)
        self._bar(-0.62, -0.16, 0.62, 0.16, _WHITE)

    def warning(self) -> None:
        """Red triangle."""
        self._fill([(-1.05, -0.75), (0, 1.05), (1.05, -0.75)], _RED)
        self._fill([(-0.72, -0.56), (0, 0.68), (0.72, -0.56)], _WHITE)
        self._bar(-0.09, -0.2, 0.09, 0.35, _BLACK)
        self._bar(-0.09, -0.46, 0.09, -0.3, _BLACK)

    def order(self) -> None:
        """Blue disc with an arrow."""
        self._ring(1.0, 18, _BLUE)
        self._bar(-0.1, -0.6, 0.1, 0.25, _WHITE)
        self._fill([(-0.38, 0.15), (0, 0.68), (0.38, 0.15)], _WHITE)

    def stop(self) -> None:
        """Red octagon."""
        self._ring(1.12, 8, _WHITE)
        self._ring(1.02, 8, _RED)
        for left in (-0.66, -0.3, 0.06, 0.42):
            self._bar(left, -0.2, left + 0.24, 0.2, _WHITE)
            self._bar(left + 0.08, -0.1, left + 0.16, 0.1, _RED)

    def diamond(self) -> None:
        """Yellow diamond."""
        self._fill([(-1.1, 0), (0, 1.1), (1.1, 0), (0, -1.1)], _WHITE)
        self._fill([(-0.86, 0), (0, 0.86), (0.86, 0), (0, -0.86)], _YELLOW)

    def parking(self) -> None:
        """Blue square with a P."""
        self._bar(-0.8, -0.8, 0.8, 0.8, _BLUE)
        self._bar(-0.36, -0.55, -0.16, 0.55, _WHITE)
        self._bar(-0.36, 0.0, 0.36, 0.55, _WHITE)
        self._bar(-0.16, 0.16, 0.16, 0.38, _BLUE)

    def board(self) -> None:
        """Large board with place names."""
        self._bar(-3.2, -1.5, 3.2, 1.5, _WHITE)
        back = _GREEN if int(self._centre[2]) % 2 else _BLUE
        self._bar(-3.05, -1.36, 3.05, 1.36, back)
        for row in (0.55, -0.1, -0.75):
            self._bar(-2.6, row, -2.6 + 2.9 + row * 1.4, row + 0.32, _WHITE)
        self._bar(1.7, -0.9, 1.95, 0.4, _WHITE)
        self._fill([(1.35, 0.3), (1.82, 0.98), (2.3, 0.3)], _WHITE)

    def yields(self) -> None:
        """Red triangle on its tip."""
        self._fill([(-1.05, 0.8), (1.05, 0.8), (0, -1.0)], _RED)
        self._fill([(-0.68, 0.6), (0.68, 0.6), (0, -0.58)], _WHITE)


SIGNS: Final[tuple[tuple[Callable[[Plate], None], float], ...]] = (
    (Plate.limit, 4),
    (Plate.warning, 3),
    (Plate.order, 3),
    (Plate.stop, 1),
    (Plate.yields, 2),
    (Plate.board, 1.6),
    (Plate.diamond, 1.5),
    (Plate.parking, 2.5),
    (Plate.forbidden, 2.5),
)
"""What paints a sign, and how common it is."""
