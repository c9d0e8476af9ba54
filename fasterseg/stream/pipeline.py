"""From source to sinks in three threads: read and fit, run the engine, finish and write."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from fasterseg.errors import FastersegError, SourceError
from fasterseg.interrupts import deferred
from fasterseg.stream.cores import shared_cores
from fasterseg.stream.in_flight import infer_each
from fasterseg.stream.live import Account, Count, account_of
from fasterseg.stream.readahead import Channel, ReadAhead, Worker
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import FrameSink, warnings_of
from fasterseg.stream.smoothing import Flicker
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.stages import Inferred
from fasterseg.stream.tally import Tally
from fasterseg.types import LatencyStats

SUMMARY_SCHEMA: Final = 1

Ending = Literal["complete", "interrupted", "lost", "failed"]
"""How a run ended: of itself, by a signal, with its source, or by any other error."""


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
        dropped: frames of a live source that came faster than they could be taken, or too late.
        seconds: from the first frame asked for to the last file closed.
        latency: stage (`decode`, `prepare`, `engine`, `finish`, `write`) -> its times per frame.
        class_shares: class name -> share of all pixels, in [0, 1].
        outputs: files and folders written.
        warnings: what was skipped or mended.
        lost_frames: frames of the source that could not be read or decoded; an estimate where
            nothing counts them.
        truncated: the source ended before its declared end.
        ended: how the run ended.
        live: the account of a live source; None for others.
        flicker: of the labels, without smoothing and with it; None where they are not smoothed.
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
    ended: Ending = "complete"
    live: Count | None = None
    flicker: Flicker | None = None

    @property
    def fps(self) -> float:
        """Frames per second end to end: decoding to written files."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; those of live sources only where it was one."""
        live = {} if self.live is None else {"ended": self.ended, "live": self.live.to_json()}
        flicker = {} if self.flicker is None else {"flicker": self.flicker.to_json()}
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
            **flicker,
            **live,
        }


def run_pipeline(
    source: FrameSource,
    segmenter: Segmenter,
    sinks: Sequence[FrameSink],
    *,
    on_frame: Callable[[Progress], None] | None = None,
    on_failure: Callable[[Summary], None] | None = None,
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
        on_failure: called where the run of a live source is about to raise, with what it did
            until then: a camera runs until it is interrupted, or lost.

    Raises:
        SourceError: the source has no frames, or was lost.
        OutputError: a sink could not write.
    """
    run = PipelineRun(source, segmenter, sinks)
    try:
        run.through(on_frame)
    except BaseException as error:
        if on_failure is not None and run.account is not None and run.tally.frames:
            on_failure(run.summary(error))
        raise
    return run.summary()


class PipelineRun:
    """One run of `run_pipeline`, for whoever has several of them: each in a thread of its own.

    Args:
        source: read to its end, and closed then.
        segmenter: its engine runs in the thread that calls `through`.
        sinks: each takes every result, and is closed at the end.
    """

    def __init__(
        self, source: FrameSource, segmenter: Segmenter, sinks: Sequence[FrameSink]
    ) -> None:
        self.tally = Tally()
        self.account = account_of(source)
        self._source = source
        self._segmenter = segmenter
        self._sinks = sinks
        self._reader = ReadAhead(source, segmenter.prepare)
        self._started = time.perf_counter()
        self._stopped = False

    def stop(self) -> None:
        """End `through` soon, with complete files; any thread or signal handler may call it."""
        self._stopped = True
        self._reader.stop()

    def through(self, on_frame: Callable[[Progress], None] | None = None) -> None:
        """Everything, to the end of the source or until `stop`; see `run_pipeline`."""
        source, segmenter, reader = self._source, self._segmenter, self._reader
        with (
            deferred(self.stop),
            shared_cores(),
            closing(source),
            _Writer(segmenter, self._sinks, self.tally, self.account) as writer,
        ):
            if source.size is not None:
                segmenter.open(source.size)
            self._started = time.perf_counter()
            with reader:
                taken = reader.newest(segmenter.await_turn) if source.live else reader
                results = infer_each(segmenter, taken, ahead=not source.live)
                with closing(results):
                    for frames, inferred in enumerate(results, start=1):
                        if not writer.put(inferred):
                            break
                        if on_frame is not None:
                            seconds = time.perf_counter() - self._started
                            on_frame(Progress(frames, source.frame_count, seconds))
        if not self.tally.frames and not self._stopped:
            raise SourceError(f"{source.name} gave no frames; give a source that has some")

    def summary(self, error: BaseException | None = None) -> Summary:
        """What was done, to be asked when everything is closed.

        Args:
            error: what `through` raised.
        """
        source, tally = self._source, self.tally
        live = None if self.account is None else self.account.now()
        return Summary(
            source=source.name,
            frames=tally.frames,
            dropped=self._reader.dropped if live is None else live.dropped,
            seconds=time.perf_counter() - self._started,
            latency=tally.latency(),
            class_shares=tally.shares(),
            outputs=tuple(path for sink in self._sinks for path in sink.paths),
            warnings=(*source.warnings, *warnings_of(self._sinks)),
            lost_frames=source.lost_frames,
            truncated=source.truncated,
            ended=self._ending(error),
            live=live,
            flicker=tally.flicker,
        )

    def _ending(self, error: BaseException | None) -> Ending:
        if error is None:
            return "interrupted" if self._stopped else "complete"
        if isinstance(error, KeyboardInterrupt):
            return "interrupted"
        return "lost" if isinstance(error, SourceError) else "failed"


class _Writer:
    """Finishes and writes results in a thread; closes the sinks at the end of its `with` block."""

    def __init__(
        self,
        segmenter: Segmenter,
        sinks: Sequence[FrameSink],
        tally: Tally,
        account: Account | None,
    ) -> None:
        self._segmenter = segmenter
        self._sinks = sinks
        self._tally = tally
        self._account = account
        self._channel: Channel[Inferred] = Channel()
        self._smoother = segmenter.smoother()
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
                result = self._segmenter.finish(inferred, self._smoother)
                started = time.perf_counter()
                for sink in self._sinks:
                    sink.write(result)
                result.times.write_ms = (time.perf_counter() - started) * 1e3
                self._tally.add(result)
                if self._account is not None:
                    self._account.wrote(result.frame)
        finally:
            self._channel.cancel()

    def _close_sinks(self) -> None:
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)
