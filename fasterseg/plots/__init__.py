"""Pictures of figures: of accuracy and training as PNG, of benchmarks and searches as SVG.

Nothing global is left behind: no pyplot, no window, no changed style. The same figures give the
same file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fasterseg.cache import write_atomic
from fasterseg.errors import UsageError
from fasterseg.plots.accuracy import matrix_figure
from fasterseg.plots.page import INK, bars, lines, scatter, standalone_svg, strips
from fasterseg.plots.search import agreement, courses, tradeoff
from fasterseg.plots.training import Record, curves_figure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "INK",
    "agreement",
    "bars",
    "confusion_matrix",
    "courses",
    "curves",
    "lines",
    "save_figure",
    "scatter",
    "strips",
    "tradeoff",
]

DPI: Final = 120


def confusion_matrix(
    path: Path, counts: NDArray[np.integer[Any]], classes: Sequence[str], title: str
) -> None:
    """Draw a confusion matrix, each row in percent of its true class, with IoU and pixel share.

    Rows of classes that are not in the truth are grey; so is the IoU of classes never met at all.

    Args:
        path: PNG file to write.
        counts: (C, C) pixels; rows are the truth, columns the prediction.
        classes: the C names.
        title: a line or two above it.

    Raises:
        ValueError: counts and classes do not fit together.
        OutputError: the file cannot be written.
    """
    with _own_style():
        _save(matrix_figure(counts, classes, title), path)


def curves(path: Path, records: Iterable[Record], title: str) -> None:
    """Draw a training: loss terms, learning rate and val mIoU over the images seen.

    Notes (a run resumed with other settings, rolled back, ...) are thin numbered lines, with
    their text below.

    Args:
        path: PNG file to write.
        records: of a training's log, earliest first: each with "step", and "images" with loss
            terms and "lr", or "images" with "val", or "note".
        title: a line above it.

    Raises:
        OutputError: the file cannot be written.
    """
    with _own_style():
        _save(curves_figure(records, title), path)


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever style the user has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        # Names that people gave are text, whatever dollar signs are in them.
        mpl.rcParams["text.parse_math"] = False
        yield


def save_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure into a file, in the form that its ending names.

    Args:
        draw: makes the figure; called where the user's own style has no say.
        path: .png or .svg.

    Raises:
        UsageError: another ending.
        OutputError: the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"'{path}' does not end in .svg or .png, the two forms of a picture")
    if path.suffix == ".svg":
        write_atomic(path, standalone_svg(draw).encode())
        return
    with _own_style():
        _save(draw(), path)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG; nothing of it depends on when or by which version it was written."""
    data = io.BytesIO()
    # Asking for a canvas by name keeps pyplot's choice of a window system out of it.
    FigureCanvasAgg(figure)
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(path, data.getvalue())
