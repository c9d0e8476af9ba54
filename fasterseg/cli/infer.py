"""`fasterseg-infer`: segment an image, a folder, a video or a camera."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    SizeOption,
    ThreadsOption,
    new_app,
    note,
    parse_size,
    run_app,
    write_json,
)

if TYPE_CHECKING:
    from fasterseg.runtime.base import Engine
    from fasterseg.stream.pipeline import Progress, Summary
    from fasterseg.types import Size

PROGRESS_INTERVAL_S: Final = 0.2
PLAIN_INTERVAL_S: Final = 10.0


def infer(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Image, folder, 'pattern*.jpg', video file or URL, camera:0 or /dev/video0.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUTPUT",
            help="File or folder; with several formats what their names start with; null: for "
            "nothing. Default: INPUT's name with _fasterseg, in this folder.",
        ),
    ] = None,
    engine: EngineOption = "auto",
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    fit: Annotated[
        str,
        typer.Option(metavar="FIT", help="stretch frames to the engine's size, or letterbox them."),
    ] = "stretch",
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="LIST", help="overlay, classmap, stats; several joined by commas."
        ),
    ] = "overlay",
    alpha: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="A", help="Opacity of the overlay's colours.")
    ] = 0.5,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames.")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, metavar="N", help="Take every n-th frame.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    json_: JsonOption = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress and no closing table.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Segment INPUT and write OUTPUT: every frame's classes, at the frame's own size.

    The engine's default size is the model's training height with INPUT's aspect ratio, rounded
    to 8: a 720x1280 clip runs at 360x640 through a model trained at 360x480.

    \b
    Examples:
      fasterseg-infer drive.mp4
      fasterseg-infer drive.mp4 out.mp4 --engine engine.onnx
      fasterseg-infer frames/ maps/ --format classmap
      fasterseg-infer drive.mp4 out --format overlay,classmap,stats --json -
      fasterseg-infer camera:0 out.mp4 --limit 300
      fasterseg-infer street.jpg --size 512x1024 --model fasterseg-student
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.errors import UsageError
    from fasterseg.preprocess import FITS, check_orientation
    from fasterseg.runtime.select import EngineRequest, check_request, open_engine
    from fasterseg.stream.pipeline import run_pipeline
    from fasterseg.stream.segmenter import Segmenter
    from fasterseg.stream.sinks import open_sinks, plan_outputs
    from fasterseg.stream.sources import open_source

    if fit not in FITS:
        raise UsageError(f"--fit {fit} is not one of {', '.join(FITS)}")
    request = EngineRequest(
        model=model,
        engine=engine,
        precision=precision,
        device=device,
        size=parse_size(size),
        threads=threads,
    )
    check_request(request)
    wanted = [] if output == "null:" else [name.strip() for name in formats.split(",")]
    opened = open_source(source, stride=stride, limit=limit)

    def factory(frame_size: Size) -> Engine:
        return open_engine(request, frame_size, note)

    with Segmenter(factory, fit) as segmenter:
        try:
            # Before the engine: a wrong output or size must not cost a build.
            if wanted:
                plan_outputs(output, wanted, opened, overwrite=overwrite)
            assert opened.size is not None
            if request.size is not None:
                check_orientation(request.size, opened.size)
            segmenter.open(opened.size)
            sinks = (
                open_sinks(
                    output, wanted, opened, segmenter.labels, alpha=alpha, overwrite=overwrite
                )
                if wanted
                else []
            )
        except BaseException:
            opened.close()
            raise
        meter = _Meter(enabled=not quiet)
        summary = run_pipeline(opened, segmenter, sinks, on_frame=meter.show)
        meter.clear()
        spec = segmenter.open(opened.size).spec
    for warning in summary.warnings:
        note(f"warning: {warning}")
    if not quiet:
        _print_summary(summary)
    if json_ is not None:
        facts = {**summary.to_json(), "engine": json.loads(spec.to_json())}
        write_json(json_, json.dumps(facts, indent=2))


class _Meter:
    """Progress on stderr: one line redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._terminal = sys.stderr.isatty()
        self._shown_at = time.perf_counter()
        self._drawn = False

    def show(self, progress: Progress) -> None:
        """Show how far the run is, if it is time."""
        now = time.perf_counter()
        interval = PROGRESS_INTERVAL_S if self._terminal else PLAIN_INTERVAL_S
        if not self._enabled or now - self._shown_at < interval:
            return
        self._shown_at = now
        text = _progress_text(progress)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
            self._drawn = True
        else:
            note(text)

    def clear(self) -> None:
        """Wipe the redrawn line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _progress_text(progress: Progress) -> str:
    if progress.total is None:
        return f"{progress.frames} frames, {progress.fps:.1f} FPS"
    left_s = max(0.0, (progress.total - progress.frames) / progress.fps) if progress.fps else 0.0
    share = min(1.0, progress.frames / progress.total) if progress.total else 1.0
    return (
        f"{progress.frames}/{progress.total} frames ({share:.0%}), {progress.fps:.1f} FPS, "
        f"{int(left_s // 60)}:{int(left_s % 60):02d} left"
    )


def _print_summary(summary: Summary) -> None:
    """The closing table, on stderr."""
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    note(
        f"{summary.frames} frames{dropped} in {summary.seconds:.1f} s: "
        f"{summary.fps:.1f} FPS end to end (decoding to written files)"
    )
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


app = new_app("")
app.command(epilog=EPILOG, no_args_is_help=True)(infer)


def run() -> None:
    """Console script `fasterseg-infer`."""
    run_app(app)
