"""Several streams at once: a pipeline each, side by side, all of them on one engine."""

from __future__ import annotations

import contextvars
import functools
import itertools
import queue
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from fasterseg.cores import usable_cores
from fasterseg.interrupts import deferred
from fasterseg.preprocess import Fit
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.cores import shared_cores
from fasterseg.stream.pipeline import PipelineRun, Progress, Summary
from fasterseg.stream.readahead import Worker
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import FrameSink
from fasterseg.stream.smoothing import SmoothOptions
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import LateSource

TICK_S: Final = 0.2
"""How often `run_many` tells how far it is."""

UNNAMED: Final = "stream"
"""A stream whose source's name has no sign that names may have."""

speaker: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("speaker", default="")
"""Name of the stream that the running thread works for; empty outside of `run_many`."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One of several streams.

    Attributes:
        name: its own; see `stream_names`.
        source: read to its end, and closed then.
        segmenter: closed when the stream ends, so that others on its engine no longer wait for it.
        sinks: take its results, and are closed when it ends.
        joined: called with a source that was late once it is there, in the stream's thread; gives
            the sinks that could not be made before.
    """

    name: str
    source: FrameSource
    segmenter: Segmenter
    sinks: Sequence[FrameSink]
    joined: Callable[[FrameSource], Sequence[FrameSink]] = lambda source: ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a stream.

    Attributes:
        name: of the stream.
        summary: what was done.
        error: what ended it before its time; None at its end, or where all were interrupted.
    """

    name: str
    summary: Summary
    error: BaseException | None


def stream_names(sources: Sequence[FrameSource]) -> tuple[str, ...]:
    """A name for each source that no other one has, fit for file names and addresses.

    It is made of the source's `stem`: letters, digits, `.`, `_` and `-`, with a number behind it
    where another one has it already; file systems that ignore letter case take them for different.
    """
    taken: set[str] = set()
    names: list[str] = []
    for source in sources:
        name = _UNSAFE.sub("-", source.stem).strip("-.") or UNNAMED
        numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        free = next(candidate for candidate in numbered if candidate.lower() not in taken)
        taken.add(free.lower())
        names.append(free)
    return tuple(names)


def segmenter_on(
    shared: SharedEngine, fit: Fit = "stretch", smooth: SmoothOptions | None = None
) -> Segmenter:
    """A segmenter that shares an engine with others; closing it lets them go on without it."""
    # One share, whatever sizes of frames come: the others would wait for one that is not used.
    share = functools.cache(shared.open)
    return Segmenter(lambda size: share(), fit, smooth)


class _Lane:
    """A stream's thread, which also runs its engine; reader and writer have their own."""

    def __init__(self, stream: Stream, done: queue.SimpleQueue[_Lane]) -> None:
        self.name = stream.name
        self.run = PipelineRun(stream.source, stream.segmenter, stream.sinks)
        self.progress = Progress(0, stream.source.frame_count, 0.0)
        self._stream = stream
        self._done = done
        self._worker = Worker("stream", self._work)
        self._ended: Ended | None = None
        self._stopped = False

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._stopped = True
        if isinstance(self._stream.source, LateSource):
            self._stream.source.interrupt()
        self.run.stop()

    def ended(self) -> Ended:
        """What became of it; waits for that."""
        if self._ended is None:
            if self._worker.ident is None:
                # Whoever was stopped before it began has its source to close all the same.
                self._worker.start()
            self._worker.join()
            error = self._worker.error
            self._ended = Ended(self.name, self.run.summary(error), error)
        return self._ended

    def _work(self) -> None:
        speaker.set(self.name)
        try:
            with closing(self._stream.segmenter):
                if self._has_source():
                    self.run.through(self._keep)
        finally:
            self._done.put(self)

    def _has_source(self) -> bool:
        """Wait for a source that is late; False where nobody waits for it any more."""
        stream = self._stream
        if not isinstance(stream.source, LateSource):
            return True
        with ExitStack() as stack:
            stack.enter_context(closing(stream.source))
            for sink in stream.sinks:
                stack.callback(sink.close)
            arrived = stream.source.arrive()
            if arrived is None:
                return False
            sinks = [*stream.sinks, *stream.joined(arrived)]
            self.run = PipelineRun(arrived, stream.segmenter, sinks)
            stack.pop_all()
        if self._stopped:
            # It may have been the run before that was told.
            self.run.stop()
        return True

    def _keep(self, progress: Progress) -> None:
        self.progress = progress


def run_many(
    streams: Sequence[Stream],
    *,
    on_tick: Callable[[Mapping[str, Progress]], None] | None = None,
    on_end: Callable[[Ended], None] | None = None,
    on_failure: Callable[[tuple[Ended, ...]], None] | None = None,
) -> tuple[Ended, ...]:
    """Segment several sources at the same time, each as `run_pipeline` does it.

    A stream that fails or is lost ends alone; the others go on. Sources, sinks and segmenters are
    closed when their stream ends. Ctrl-C ends all of them, and is raised once they have; the
    results there were by then are written, and the files complete.

    Args:
        streams: at least one, of different names.
        on_tick: called now and then with how far each stream is.
        on_end: called when a stream has ended; like all of these, in the calling thread.
        on_failure: called where this is about to raise, with what the streams did until then.

    Returns:
        What became of each stream, in order.
    """
    done: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
    lanes = [_Lane(stream, done) for stream in streams]

    def stop() -> None:
        for lane in lanes:
            lane.stop()

    try:
        with deferred(stop), shared_cores(usable_cores() // len(lanes)):
            try:
                _to_the_end(lanes, done, on_tick, on_end)
            except BaseException:
                stop()
                raise
            finally:
                ended = tuple(lane.ended() for lane in lanes)
    except BaseException:
        if on_failure is not None:
            on_failure(ended)
        raise
    return ended


def _to_the_end(
    lanes: Sequence[_Lane],
    done: queue.SimpleQueue[_Lane],
    on_tick: Callable[[Mapping[str, Progress]], None] | None,
    on_end: Callable[[Ended], None] | None,
) -> None:
    for lane in lanes:
        lane.start()
    running = len(lanes)
    while running:
        try:
            # Never for ever: a signal that came to another thread is looked at here.
            lane = done.get(timeout=TICK_S)
        except queue.Empty:
            if on_tick is not None:
                on_tick({lane.name: lane.progress for lane in lanes})
        else:
            running -= 1
            if on_end is not None:
                on_end(lane.ended())
