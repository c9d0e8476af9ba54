"""`fasterseg-infer INPUT --also INPUT`: several inputs on one engine, and what is told of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import typer

from fasterseg.cli.infer_run import Job
from fasterseg.cli.options import note, write_json
from fasterseg.cli.progress import Meter, reason_of, tell_failure, tell_streams, told_losses
from fasterseg.cli.smoothing import check_smooth
from fasterseg.cli.viewing import introduce, open_pages
from fasterseg.errors import FastersegError, SourceError
from fasterseg.preprocess import check_orientation
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.runtime.driver import find_gpu
from fasterseg.runtime.request import EngineRequest, engine_file
from fasterseg.runtime.select import open_engine
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.gathering import SharingStats
from fasterseg.stream.live import account_of
from fasterseg.stream.many import Ended, Stream, run_many, segmenter_on, speaker, stream_names
from fasterseg.stream.many_ends import folder_of, open_sources, plan_streams
from fasterseg.stream.pipeline import Progress
from fasterseg.stream.sinks import FrameSink, open_sinks
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import LateSource, now_of
from fasterseg.types import Size

SCHEMA: Final = 1
MOST_BATCH: Final = 8
DELAY_MS: Final = 5.0
"""Limits of the batches in which streams share a GPU; those of `fasterseg-bench --share`."""

LIKE: Final = 0.04
"""Relative difference up to which two aspects are taken for the same: sizes are rounded to 8."""


def run_several(job: Job, uris: Sequence[str]) -> None:
    """Segment several inputs at the same time, on one engine.

    Raises:
        FastersegError: what went wrong before the first frame.
        typer.Exit: with 3 where an input was lost for good, else the code of what a stream
            ended with; that was told when it did.
    """
    if job.formats:
        folder_of(job.output)
    with ExitStack() as stack:
        with told_losses(speaker.get):
            opened = open_sources(uris, job.taken)
        for source in opened:
            stack.callback(source.close)
        sources = dict(zip(stream_names(opened), opened, strict=True))
        outputs = _checked(job, sources)
        _tell_late(sources)
        pages = open_pages(job.view, sources, job.options)
        stack.enter_context(pages or nullcontext())
        leader, size = _leader(sources)
        engine = _open_engine(job.request, size, len(opened))
        stack.callback(engine.close)
        introduce(pages, engine)
        shared = stack.enter_context(_share(engine, len(opened)))
        writers = _Writers(job, engine, leader, size)
        streams = []
        for name, source in sources.items():
            joined = partial(writers.of, name, outputs.get(name))
            sinks = [] if isinstance(source, LateSource) else joined(source)
            shown = [] if pages is None else [pages.sinks[name]]
            segmenter = segmenter_on(shared, job.fit, job.smooth)
            streams.append(Stream(name, source, segmenter, [*shown, *sinks], joined))
        ended = _run(streams, _Report(job, sources, shared, engine.spec))
        # In here: a page that had stopped must not hide it.
        _raise_first(ended)


def _tell_late(sources: Mapping[str, FrameSource]) -> None:
    for name, source in sources.items():
        if isinstance(source, LateSource):
            note(f"{name}: {source.reason}; it joins when it comes", "warning", stream=name)


def _run(streams: Sequence[Stream], report: _Report) -> tuple[Ended, ...]:
    with told_losses(speaker.get):
        ended = run_many(
            streams, on_tick=report.tick, on_end=report.one, on_failure=report.everything
        )
    report.everything(ended)
    return ended


def _checked(job: Job, sources: Mapping[str, FrameSource]) -> dict[str, str]:
    """Where each stream writes; a wrong output or size must not cost the build of an engine."""
    for source in sources.values():
        check_smooth(job.smooth, source)
    if job.request.size is not None:
        check_orientation(job.request.size, _leader(sources)[1])
    if not job.formats:
        return {}
    return plan_streams(job.output, job.formats, sources, job.options, overwrite=job.overwrite)


def _leader(sources: Mapping[str, FrameSource]) -> tuple[str, Size]:
    """Name and size of the first source that is there: the engine is made for it."""
    return next((name, source.size) for name, source in sources.items() if source.size is not None)


def _open_engine(request: EngineRequest, size: Size, streams: int) -> Engine:
    """The engine for frames of one size; on a GPU it takes frames of several streams at once."""
    # An engine file takes the batch it was made for.
    if request.device == "cpu" or engine_file(request) is not None or find_gpu() is None:
        return open_engine(request, size, note)
    engine = open_engine(replace(request, batch=min(MOST_BATCH, streams)), size, note)
    if engine.device != "cpu":
        return engine
    engine.close()
    return open_engine(request, size, note)


def _share(engine: Engine, streams: int) -> SharedEngine:
    """What the streams share."""
    # On a CPU a batch of n takes n times as long: the first of its frames would only wait longer.
    if engine.device == "cpu":
        return SharedEngine(engine, max_batch=1, max_delay_ms=0.0)
    return SharedEngine(engine, engine.spec.batch or min(MOST_BATCH, streams), DELAY_MS)


@dataclass(frozen=True, slots=True)
class _Writers:
    """What all streams have in common where the results of one are to be written.

    Attributes:
        job: what the options ask for.
        engine: runs the frames.
        leader: name of the stream that the engine was made for.
        size: of its frames.
    """

    job: Job
    engine: Engine
    leader: str
    size: Size

    def of(self, name: str, output: str | None, source: FrameSource) -> list[FrameSink]:
        """The sinks of a source that is there; tells what is worth knowing of it."""
        job, spec = self.job, self.engine.spec
        if not job.quiet:
            self._tell_notes(name, source)
        if output is None:
            return []
        return open_sinks(
            output, job.formats, source, spec.labels, job.options, overwrite=job.overwrite
        )

    def _tell_notes(self, name: str, source: FrameSource) -> None:
        """What is as it should be and yet worth knowing."""
        for text in source.notes:
            note(f"note: {name}: {text}", stream=name)
        size, taken = source.size, self.engine.spec.size
        if taken is None or size is None or abs(_aspect(size) / _aspect(self.size) - 1) <= LIKE:
            return
        done = "stretched" if self.job.fit == "stretch" else "letterboxed"
        note(
            f"note: {name}: frames of {size} (HxW) are {done} to {taken}, the size of the "
            f"engine that it shares with {self.leader} ({self.size})",
            stream=name,
        )


def _aspect(size: Size) -> float:
    return size.width / size.height


class _Report:
    """Tells how several streams fare, while they run and in the end."""

    def __init__(
        self, job: Job, sources: Mapping[str, FrameSource], shared: SharedEngine, spec: EngineSpec
    ) -> None:
        self._job = job
        self._sources = sources
        self._shared = shared
        self._spec = spec
        self._meter = Meter(enabled=not job.quiet)
        self._ended: dict[str, Ended] = {}
        self._started = time.perf_counter()

    def tick(self, latest: Mapping[str, Progress]) -> None:
        """How far they are, all together, and whose source is away."""
        totals = [progress.total for progress in latest.values()]
        progress = Progress(
            sum(progress.frames for progress in latest.values()),
            None if None in totals else sum(total for total in totals if total is not None),
            time.perf_counter() - self._started,
        )
        away = [name for name in latest if name not in self._ended and self._is_away(name)]
        running = len(latest) - len(self._ended)
        parts = [f"{running} of {len(latest)} streams left"] if self._ended else []
        parts += [f"away: {', '.join(away)}"] if away else []
        self._meter.show(progress, "".join(f"; {part}" for part in parts))

    def one(self, ended: Ended) -> None:
        """One has ended."""
        self._ended[ended.name] = ended
        self._meter.clear()
        tell_failure(ended)

    def everything(self, streams: Sequence[Ended]) -> None:
        """All have ended."""
        self._meter.clear()
        sharing = self._shared.statistics()
        facts = {
            "schema": SCHEMA,
            "streams": {ended.name: _facts_of(ended) for ended in streams},
            "engine": json.loads(self._spec.to_json()),
            "sharing": self._sharing_facts(sharing),
        }
        seconds = time.perf_counter() - self._started
        tell_streams(streams, seconds, facts, sharing, quiet=self._job.quiet)
        if self._job.json is not None:
            write_json(self._job.json, json.dumps(facts, indent=2))

    def _is_away(self, name: str) -> bool:
        account = account_of(now_of(self._sources[name]))
        return account is not None and not account.now().connected

    def _sharing_facts(self, stats: SharingStats) -> dict[str, Any]:
        return {
            "max_batch": self._shared.max_batch,
            "max_delay_ms": self._shared.max_delay_ms,
            "batches": stats.batches,
            "frames": stats.frames,
            "mean_fill": round(stats.mean_fill, 4),
            "waited_ms": None if stats.waited is None else stats.waited.to_json(),
        }


def _facts_of(ended: Ended) -> dict[str, Any]:
    """What one stream did, as with one input, and always how it ended."""
    error = {} if ended.error is None else {"error": reason_of(ended)}
    return {**ended.summary.to_json(), "ended": ended.summary.ended, **error}


def _raise_first(streams: Sequence[Ended]) -> None:
    """End with the code of what went wrong, which was told already."""
    errors = [ended.error for ended in streams if ended.error is not None]
    lost = next((error for error in errors if isinstance(error, SourceError)), None)
    error = lost or next(iter(errors), None)
    if isinstance(error, FastersegError):
        raise typer.Exit(error.exit_code)
    if error is not None:
        # Nobody foresaw it: it ends where all of these do.
        raise error
