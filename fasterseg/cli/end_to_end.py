"""A video through the whole pipeline with an engine that is being measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fasterseg.errors import UsageError

if TYPE_CHECKING:
    from fasterseg.bench.cells import EndToEnd
    from fasterseg.runtime.base import Engine

OUTPUTS: Final = {"overlay": "out.mp4", "classmap": "out.mkv", "none": ""}
"""What a run writes -> its file."""


def filming(video: str, output: str, limit: int | None) -> Callable[[Engine], EndToEnd]:
    """What times an engine from an encoded video to written files.

    Args:
        video: a file, as `fasterseg-infer` takes it.
        output: "overlay" (H.264), "classmap" (FFV1) or "none".
        limit: frames of a run; None for all there are.

    Raises:
        UsageError: there is no such output.
        SourceError: the video cannot be opened.
    """
    from fasterseg.stream.sources import open_source
    from fasterseg.stream.sources_options import SourceOptions

    if output not in OUTPUTS:
        raise UsageError(f"--video-output {output} is not one of {', '.join(OUTPUTS)}")
    options = SourceOptions(limit=limit)
    # Now, and not after minutes of measuring.
    open_source(video, options).close()

    def film(engine: Engine) -> EndToEnd:
        with tempfile.TemporaryDirectory() as folder:
            return _film(engine, video, options, output, Path(folder))

    return film


def _film(engine: Engine, video: str, options: object, output: str, folder: Path) -> EndToEnd:
    from fasterseg.bench.cells import THREADS, EndToEnd
    from fasterseg.stream.pipeline import run_pipeline
    from fasterseg.stream.segmenter import Segmenter
    from fasterseg.stream.sinks import open_sinks
    from fasterseg.stream.sources import open_source
    from fasterseg.stream.sources_options import SourceOptions

    assert isinstance(options, SourceOptions)
    source = open_source(video, options)
    assert source.size is not None
    size = source.size
    target = str(folder / OUTPUTS[output])
    sinks = open_sinks(target, [output], source, engine.spec.labels) if output != "none" else []
    # The segmenter is left open: closing it would close the engine, which is somebody else's.
    segmenter = Segmenter(lambda _: engine)
    summary = run_pipeline(source, segmenter, sinks)
    medians = {stage: stats.p50_ms for stage, stats in summary.latency.items()}
    sums = {thread: sum(medians[stage] for stage in own) for thread, own in THREADS.items()}
    return EndToEnd(
        source=Path(summary.source).name,
        source_size=str(size),
        output=output,
        frames=summary.frames,
        seconds=summary.seconds,
        fps=summary.fps,
        stages=dict(summary.latency),
        bound_by=max(sums, key=lambda thread: sums[thread]),
    )
