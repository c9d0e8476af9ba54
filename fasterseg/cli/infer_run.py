"""`fasterseg-infer` at work: what is opened and checked first, the run, and what is told of it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasterseg.cli.options import note, write_json
from fasterseg.cli.progress import Meter, tell_end, told_losses
from fasterseg.cli.smoothing import check_smooth
from fasterseg.cli.viewing import close_pages, introduce, open_pages, page_sinks
from fasterseg.preprocess import Fit, check_orientation
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.stream.many import stream_names
from fasterseg.stream.outputs import plan_outputs
from fasterseg.stream.pipeline import Summary, run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import SinkOptions, check_options, open_sinks
from fasterseg.stream.sinks_raw import RawSink
from fasterseg.stream.smoothing import SmoothOptions
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.runtime.base import Engine
    from fasterseg.serve.view import View


@dataclass(frozen=True, slots=True)
class Job:
    """What the options ask for.

    Attributes:
        output: OUTPUT as it was typed.
        formats: what is written; none where nothing is.
        request: the engine.
        fit: how frames are fitted to it.
        smooth: how class maps are smoothed, if they are.
        taken: which frames of an input.
        options: how they are written.
        overwrite: replace what is there.
        view: address of the live page, if one is wanted.
        json: where the summary goes, if anywhere.
        quiet: no progress and no closing table.
    """

    output: str | None
    formats: tuple[str, ...]
    request: EngineRequest
    fit: Fit
    smooth: SmoothOptions | None
    taken: SourceOptions
    options: SinkOptions
    overwrite: bool
    view: str | None
    json: str | None
    quiet: bool


def run_one(job: Job, uri: str) -> None:
    """Segment one input.

    Raises:
        FastersegError: what went wrong; exit codes are theirs.
    """
    with told_losses():
        opened = open_source(uri, job.taken)
    view: View | None = None

    def engine_for(size: Size) -> Engine:
        return open_engine(job.request, size, note)

    with Segmenter(engine_for, job.fit, job.smooth) as segmenter:
        try:
            # Before the engine: a wrong output or size must not cost a build.
            check_smooth(job.smooth, opened)
            if job.formats:
                plans = plan_outputs(job.output, job.formats, opened, overwrite=job.overwrite)
                check_options(plans, job.options)
            assert opened.size is not None
            if job.request.size is not None:
                check_orientation(job.request.size, opened.size)
            view = open_pages(job.view, {stream_names((opened,))[0]: opened}, job.options)
            introduce(view, segmenter.open(opened.size))
            sinks = (
                open_sinks(
                    job.output,
                    job.formats,
                    opened,
                    segmenter.labels,
                    job.options,
                    overwrite=job.overwrite,
                )
                if job.formats
                else []
            )
        except BaseException:
            close_pages(view)
            opened.close()
            raise
        for sink in sinks:
            if isinstance(sink, RawSink) and not job.quiet:
                note(sink.hint(opened.size, opened.fps, segmenter.labels))
        for text in () if job.quiet else opened.notes:
            note(f"note: {text}")
        spec = segmenter.open(opened.size).spec
        meter = Meter(enabled=not job.quiet)

        def tell(summary: Summary) -> None:
            meter.clear()
            tell_end(summary, quiet=job.quiet)
            if job.json is not None:
                facts = {**summary.to_json(), "engine": json.loads(spec.to_json())}
                write_json(job.json, json.dumps(facts, indent=2))

        with told_losses(), view or nullcontext():
            all_sinks = [*page_sinks(view), *sinks]
            summary = run_pipeline(
                opened, segmenter, all_sinks, on_frame=meter.show, on_failure=tell
            )
    tell(summary)
