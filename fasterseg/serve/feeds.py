"""One stream as the page's server holds it: board, figures, pictures and who looks at them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.serve.board import Board
from fasterseg.serve.conversation import Seats
from fasterseg.serve.figures import Reporter, printable
from fasterseg.serve.pictures import Budget, Gallery, Snapshots
from fasterseg.serve.viewers import MAX_VIEWERS, Viewers
from fasterseg.stream.live import account_of
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import now_of


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """One stream.

    Attributes:
        name: its name among others.
        board: what is shown of it.
        reporter: its figures.
        snapshots: its pictures at full size.
        viewers: its open pages.
    """

    name: str
    board: Board
    reporter: Reporter
    snapshots: Snapshots
    viewers: Viewers


def make_feeds(
    sources: Mapping[str, FrameSource],
    style: OverlayStyle,
    paint: Callable[[LabelSet], LabelSet],
    house: Seats,
) -> dict[str, Feed]:
    """A feed for each stream, in the same order.

    Args:
        sources: name -> what its results come from.
        style: how overlays are drawn.
        paint: gives the model's classes the colours that were asked for.
        house: places for all who look, whatever they look at.
    """
    budget, lock = Budget(), threading.Lock()
    feeds = {}
    for name, source in sources.items():
        board = Board(paint)
        reporter = Reporter(
            board,
            printable(name),
            printable(source.name),
            style,
            counters=_counters_of(source),
            connected=_presence_of(source),
        )
        gallery = Gallery(board, budget)
        viewers = Viewers(board, reporter, gallery, Seats(MAX_VIEWERS, house))
        feeds[name] = Feed(name, board, reporter, Snapshots(board, style, lock), viewers)
    return feeds


def _counters_of(source: FrameSource) -> Callable[[], Mapping[str, float]]:
    def counters() -> Mapping[str, float]:
        now = now_of(source)
        account = account_of(now)
        counted = {} if account is None else account.counters()
        return {**counted, "lost_frames": now.lost_frames}

    return counters


def _presence_of(source: FrameSource) -> Callable[[], bool]:
    def connected() -> bool:
        account = account_of(now_of(source))
        return account is None or account.now().connected

    return connected
