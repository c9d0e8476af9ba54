"""From source to sinks in three threads: read and fit, run the engine, finish and write."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fasterseg.errors import FastersegError, SourceError
from fasterseg.interrupts import deferred
from fasterseg.stream.cores import shared_cores
from fasterseg.stream.in_flight import infer_each
from fasterseg.stream.readahead import Channel, ReadAhead, Worker
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import FrameSink
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.stages import Inferred
from fasterseg.stream.tally import Tally
from fasterseg.types import LatencyStats

SUMMARY_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        frames: frames segmented.
        total: frames there will be, an estimate; None when unknown.
        seconds: since the first frame was asked for.
    """

    frames: int
    total: int | None
    seconds: float

    @property
    def fps(self) -> float:
        """Frames per second so far."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        source: name of the source.
        frames: frames segmented and written.
        dropped: frames of a live source that came faster than they could be taken.
        seconds: from the first frame asked for to the last file closed.
        latency: stage (`decode`, `prepare`, `engine`, `finish`, `write`) -> its times per frame.
        class_shares: class name -> share of all pixels, in [0, 1].
        outputs: files and folders written.
        warnings: what was skipped or mended.
        lost_frames: frames of the source that could not be read or decoded; an estimate where
            nothing counts them.
        truncated: the source ended before its declared end.
    """

    source: str
    frames: int
    dropped: int
    seconds: float
    latency: Mapping[str, LatencyStats]
    class_shares: Mapping[str, float]
    outputs: tuple[Path, ...]
    warnings: tuple[str, ...]
    lost_frames: int
    truncated: bool

    @property
    def fps(self) -> float:
        """Frames per second end to end: decoding to written files."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "schema": SUMMARY_SCHEMA,
            "source": self.source,
            "frames": self.frames,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 4),
            "end_to_end_fps": round(self.fps, 3),
            "latency_ms": {stage: stats.to_json() for stage, stats in self.latency.items()},
            "class_shares": {name: round(share, 6) for name, share in self.class_shares.items()},
            "outputs": [str(path) for path in self.outputs],
            "warnings": list(self.warnings),
            "lost_frames": self.lost_frames,
            "truncated": self.truncated,
        }


def run_pipeline(
    source: FrameSource,
    segmenter: Segmenter,
    sinks: Sequence[FrameSink],
    *,
    on_frame: Callable[[Progress], None] | None = None,
) -> Summary:
    """Segment a whole source and write every result, in order and in constant memory.

    Source and sinks are closed in any case, the segmenter is not. What stops the run, an
    exception in any of the three threads or Ctrl-C, is raised once all of them have ended; the
    results there were by then are written, and the files complete.

    Args:
        source: read to its end.
        segmenter: its engine runs in the calling thread.
        sinks: each takes every result, in a thread of their own.
        on_frame: called in the calling thread after each frame.

    Raises:
        SourceError: the source has no frames, or was lost.
        OutputError: a sink could not write.
    """
    tally = Tally()
    reader = ReadAhead(source, segmenter.prepare)
    with (
        deferred(reader.stop),
        shared_cores(),
        closing(source),
        _Writer(segmenter, sinks, tally) as writer,
    ):
        if source.size is not None:
            segmenter.open(source.size)
        started = time.perf_counter()
        with reader:
            results = infer_each(segmenter, reader, ahead=not source.live)
            with closing(results):
                for frames, inferred in enumerate(results, start=1):
                    if not writer.put(inferred):
                        break
                    if on_frame is not None:
                        seconds = time.perf_counter() - started
                        on_frame(Progress(frames, source.frame_count, seconds))
    seconds = time.perf_counter() - started
    if not tally.frames:
        raise SourceError(f"{source.name} gave no frames; give a source that has some")
    return Summary(
        source=source.name,
        frames=tally.frames,
        dropped=reader.dropped,
        seconds=seconds,
        latency=tally.latency(),
        class_shares=tally.shares(),
        outputs=tuple(path for sink in sinks for path in sink.paths),
        warnings=tuple(source.warnings),
        lost_frames=source.lost_frames,
        truncated=source.truncated,
    )


class _Writer:
    """Finishes and writes results in a thread; closes the sinks at the end of its `with` block."""

    def __init__(self, segmenter: Segmenter, sinks: Sequence[FrameSink], tally: Tally) -> None:
        self._segmenter = segmenter
        self._sinks = sinks
        self._tally = tally
        self._channel: Channel[Inferred] = Channel()
        self._worker = Worker("writer", self._write)

    def put(self, inferred: Inferred) -> bool:
        """Hand over one result; False when writing has failed."""
        return self._channel.put(inferred)

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.finish()
        self._worker.join()
        first = error or self._worker.error
        try:
            self._close_sinks()
        except FastersegError:
            # A sink that failed to write fails to close as well: the first reason is the one told.
            if first is None:
                raise
        if error is None and first is not None:
            raise first

    def _write(self) -> None:
        try:
            for inferred in self._channel:
                result = self._segmenter.finish(inferred)
                started = time.perf_counter()
                for sink in self._sinks:
                    sink.write(result)
                result.times.write_ms = (time.perf_counter() - started) * 1e3
                self._tally.add(result)
        finally:
            self._channel.cancel()

    def _close_sinks(self) -> None:
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)
