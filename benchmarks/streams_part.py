"""A process of `streams.py`: its inputs, through an engine of its own, for a while."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fasterseg.runtime.base import Engine
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.stream.batching import SharedEngine
from fasterseg.stream.many import Ended, Stream, run_many, segmenter_on, stream_names
from fasterseg.stream.many_ends import open_sources
from fasterseg.stream.pipeline import PipelineRun, Progress, Summary
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size

MOST_BATCH: Final = 8
DELAY_MS: Final = 5.0
"""Limits of batches on a GPU, those of `fasterseg-infer --also`; on a CPU frames run one by one."""


@dataclass(frozen=True)
class Job:
    """What one process does."""

    uris: tuple[str, ...]
    way: str
    loop: int
    seconds: float
    request: dict[str, Any]


class EnoughError(Exception):
    """The time is over."""


class Ages:
    """A sink that notes how old each frame's picture is when its result is there."""

    def __init__(self, seconds: list[float]) -> None:
        self.paths: list[Path] = []
        self._seconds = seconds

    def write(self, result: SegmentationResult) -> None:
        """Take one result."""
        if result.frame.arrived_s is not None:
            self._seconds.append(time.monotonic() - result.frame.arrived_s)

    def close(self) -> None:
        """Nothing to complete."""


def work(job: Job) -> dict[str, Any]:
    """A process's part: open everything, say so, wait for the word, run for a while.

    Args:
        job: a single input where the way is `processes`, which is `fasterseg-infer` without
            `--also`.
    """
    size = job.request["size"]
    request = EngineRequest(**{**job.request, "size": None if size is None else Size.parse(size)})
    ages: list[float] = []
    memory: list[float | None] = []
    with ExitStack() as stack:
        sources = open_sources(job.uris, SourceOptions(loop=job.loop))
        for source in sources:
            stack.enter_context(closing(source))
        first = sources[0].size
        assert first is not None
        engine = open_engine(request, first, lambda line: print(line, file=sys.stderr))
        warm = Segmenter(lambda size: engine)
        stack.enter_context(warm)
        warm(np.zeros((*first, 3), np.uint8))
        print("ready", flush=True)
        sys.stdin.readline()
        ends_s, cpu_s = time.perf_counter() + job.seconds, time.process_time()

        def look(*_: object) -> None:
            if time.perf_counter() > ends_s:
                memory.append(memory_mib())
                raise EnoughError

        if job.way == "processes":
            summaries = [_alone(PipelineRun(sources[0], warm, [Ages(ages)]), look)]
        else:
            with shared_by(engine, len(sources)) as shared:
                names = stream_names(sources)
                streams = [
                    Stream(name, source, segmenter_on(shared), [Ages(ages)])
                    for name, source in zip(names, sources, strict=True)
                ]
                summaries = _together(streams, look)
    return {
        "frames": [summary.frames for summary in summaries],
        "seconds": [summary.seconds for summary in summaries],
        "dropped": sum(summary.dropped for summary in summaries),
        "staleness_s": ages,
        "cpu_s": time.process_time() - cpu_s,
        "memory_mib": memory[0],
    }


def shared_by(engine: Engine, streams: int) -> SharedEngine:
    """The engine for so many streams, as `--also` has it."""
    if engine.device == "cpu":
        return SharedEngine(engine, 1, 0.0)
    return SharedEngine(engine, engine.spec.batch or min(MOST_BATCH, streams), DELAY_MS)


def _alone(run: PipelineRun, look: Callable[[Progress], None]) -> Summary:
    try:
        run.through(look)
    except EnoughError:
        return run.summary()
    raise RuntimeError("the input ended before its time")


def _together(streams: Sequence[Stream], look: Callable[..., None]) -> list[Summary]:
    told: list[tuple[Ended, ...]] = []
    try:
        run_many(streams, on_tick=look, on_failure=told.append)
    except EnoughError:
        (ended,) = told
        failed = [one.error for one in ended if one.error is not None]
        if failed:
            raise failed[0] from None
        return [one.summary for one in ended]
    raise RuntimeError("the inputs ended before their time")


def memory_mib() -> float | None:
    """Proportional set size of this process."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    found = [line.split() for line in text.splitlines() if line.startswith("Pss:")]
    return int(found[0][1]) / 1024


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(work(Job(**{**given, "uris": tuple(given["uris"])}))))
