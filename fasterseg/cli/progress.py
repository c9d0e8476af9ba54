"""What a run tells people on stderr: how far it is, what happens to its source, what it did."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fasterseg.cli.options import draws_progress, for_machines, note
from fasterseg.cli.smoothing import flicker_line
from fasterseg.errors import FastersegError

if TYPE_CHECKING:
    from fasterseg.stream.gathering import SharingStats
    from fasterseg.stream.live import Count
    from fasterseg.stream.many import Ended
    from fasterseg.stream.pipeline import Progress, Summary

INTERVAL_S: Final = 0.2
PLAIN_INTERVAL_S: Final = 10.0

_CLEAR: Final = "\r\x1b[2K"
_LIVE_LOG: Final = "fasterseg.live"


class Meter:
    """Progress on stderr: one line redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._terminal = draws_progress()
        self._shown_at = time.perf_counter()
        self._drawn = False

    def show(self, progress: Progress, more: str = "") -> None:
        """Show how far the run is, and what else there is to say, if it is time."""
        now = time.perf_counter()
        interval = INTERVAL_S if self._terminal else PLAIN_INTERVAL_S
        if not self._enabled or now - self._shown_at < interval:
            return
        self._shown_at = now
        text = _progress_text(progress) + more
        if self._terminal:
            # A line that is wrapped could not be wiped.
            sys.stderr.write(f"{_CLEAR}{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()
            self._drawn = True
        else:
            note(text)

    def clear(self) -> None:
        """Wipe the redrawn line."""
        if self._drawn:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._drawn = False


@contextlib.contextmanager
def told_losses(whose: Callable[[], str] = str) -> Iterator[None]:
    """Tell at once, as warnings, when a live source is lost and when it is back.

    Args:
        whose: name of the stream that the calling thread works for; empty where there is one.
    """
    log = logging.getLogger(_LIVE_LOG)
    relay = _Relay(whose)
    passed_on, log.propagate = log.propagate, False
    log.addHandler(relay)
    try:
        yield
    finally:
        log.removeHandler(relay)
        log.propagate = passed_on


class _Relay(logging.Handler):
    """Turns log records into notes."""

    def __init__(self, whose: Callable[[], str]) -> None:
        super().__init__(logging.WARNING)
        self._whose = whose

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one; it may come from any thread."""
        if draws_progress():
            with contextlib.suppress(OSError):
                sys.stderr.write(_CLEAR)
        name = self._whose()
        note(f"{name}: {record.getMessage()}" if name else record.getMessage(), "warning")


def _progress_text(progress: Progress) -> str:
    if progress.total is None:
        return f"{progress.frames} frames, {progress.fps:.1f} FPS"
    left_s = max(0.0, (progress.total - progress.frames) / progress.fps) if progress.fps else 0.0
    share = min(1.0, progress.frames / progress.total) if progress.total else 1.0
    return (
        f"{progress.frames}/{progress.total} frames ({share:.0%}), {progress.fps:.1f} FPS, "
        f"{int(left_s // 60)}:{int(left_s % 60):02d} left"
    )


def tell_end(summary: Summary, *, quiet: bool) -> None:
    """Warnings and, unless nobody wants it, the closing table, on stderr."""
    for warning in summary.warnings:
        note(warning, "warning")
    if not quiet:
        _tell_table(summary)


def _tell_table(summary: Summary) -> None:
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    lost = f", {summary.lost_frames} lost" if summary.lost_frames else ""
    note(
        f"{summary.frames} frames{dropped}{lost} in {summary.seconds:.1f} s: "
        f"{summary.fps:.1f} FPS end to end (decoding to written files)",
        summary=summary.to_json(),
    )
    if for_machines():
        return
    for line in () if summary.live is None else _live_lines(summary.live):
        note(f"  {line}")
    if summary.flicker is not None:
        note(f"  {flicker_line(summary.flicker)}")
    note("")
    note(f"  {'stage':<10} {'p50 ms':>8} {'p90 ms':>8}")
    for stage, stats in summary.latency.items():
        note(f"  {stage:<10} {stats.p50_ms:>8.2f} {stats.p90_ms:>8.2f}")
    note("")
    width = max(len(name) for name in summary.class_shares)
    for name, share in summary.class_shares.items():
        note(f"  {name:<{width}} {share:>7.2%}  {'#' * round(share * 40)}".rstrip())
    note("")
    for path in summary.outputs:
        note(f"wrote {path}")


def _live_lines(count: Count) -> Iterator[str]:
    """The account of a live source, for people."""
    parts = [f"{count.processed} processed", f"{count.dropped} dropped"]
    parts += [f"{count.passed_over} passed over"] if count.passed_over else []
    parts += [f"{count.unfinished} unfinished"] if count.unfinished else []
    yield f"captured {count.captured} = {' + '.join(parts)}; {count.duplicated} duplicated"
    yield (
        f"reconnects {count.reconnects}, offline {count.seconds_offline:.1f} s, staleness at most "
        f"{count.max_staleness_s * 1e3:.0f} ms"
    )


def tell_failure(ended: Ended) -> None:
    """Tell at once that a stream has ended before its time, and why."""
    if ended.error is not None:
        note(f"{ended.name}: {reason_of(ended)}", "error", stream=ended.name)


def reason_of(ended: Ended) -> str:
    """What ended a stream before its time."""
    # Errors of ours speak for themselves; what nobody foresaw says at least what it is.
    return str(ended.error) if isinstance(ended.error, FastersegError) else repr(ended.error)


def tell_streams(
    streams: Sequence[Ended],
    seconds: float,
    facts: Mapping[str, object],
    sharing: SharingStats,
    *,
    quiet: bool,
) -> None:
    """Warnings and, unless nobody wants it, the closing table of several streams, on stderr.

    Args:
        streams: what became of each.
        seconds: from the first one's beginning to the last one's end.
        facts: the same for machines.
        sharing: how their frames came together.
        quiet: warnings only.
    """
    for ended in streams:
        for warning in ended.summary.warnings:
            note(f"{ended.name}: {warning}", "warning", stream=ended.name)
    if quiet:
        return
    frames = sum(ended.summary.frames for ended in streams)
    fps = frames / seconds if seconds > 0 else 0.0
    note(
        f"{len(streams)} streams, {frames} frames in {seconds:.1f} s: {fps:.1f} FPS end to end, "
        f"all together{_sharing_text(sharing)}",
        summary=facts,
    )
    if for_machines():
        return
    note("")
    _tell_rows(streams)
    note("")
    for ended in streams:
        for path in ended.summary.outputs:
            note(f"wrote {path}")


def _sharing_text(sharing: SharingStats) -> str:
    if sharing.waited is None:
        return ""
    together = sharing.frames / sharing.batches
    batches = f", which took {together:.1f} at once" if together > 1 else ""
    return f"; frames waited for {sharing.waited.p50_ms:.1f} ms (p50) for the engine{batches}"


def _tell_rows(streams: Sequence[Ended]) -> None:
    """A line for each stream, and a second one with the account of a live source."""
    stages = list(dict.fromkeys(stage for ended in streams for stage in ended.summary.latency))
    width = max(len("stream"), *(len(ended.name) for ended in streams))
    titles = "".join(f" {stage:>8}" for stage in stages)
    note(f"  {'':<{width}} {'':>8} {'':>8} {'':>6} {'':>7}{' p50 ms:' if stages else ''}")
    note(f"  {'stream':<{width}} {'frames':>8} {'dropped':>8} {'lost':>6} {'FPS':>7}{titles}  end")
    for ended in streams:
        summary = ended.summary
        times = "".join(
            f" {summary.latency[stage].p50_ms:>8.2f}" if stage in summary.latency else f" {'-':>8}"
            for stage in stages
        )
        note(
            f"  {ended.name:<{width}} {summary.frames:>8} {summary.dropped:>8} "
            f"{summary.lost_frames:>6} {summary.fps:>7.1f}{times}  {summary.ended}"
        )
        for line in () if summary.live is None else _live_lines(summary.live):
            note(f"  {'':<{width}}   {line}")
        if summary.flicker is not None:
            note(f"  {'':<{width}}   {flicker_line(summary.flicker)}")
