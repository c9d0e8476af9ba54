"""`fasterseg-infer`: segment an image, a folder, a video or a camera."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from fasterseg.cli.inputs import (
    INPUT_HELP,
    InputFormatOption,
    InputFpsOption,
    InputSizeOption,
    LimitOption,
    LoopOption,
    MaxFpsOption,
    StartOption,
    StrideOption,
    source_options,
)
from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    ModelOption,
    NoBuildOption,
    PinOption,
    PluginsOption,
    PrecisionOption,
    SizeOption,
    TailOption,
    ThreadsOption,
    draws_progress,
    for_machines,
    new_app,
    note,
    parse_size,
    run_app,
    write_json,
)

if TYPE_CHECKING:
    from fasterseg.runtime.base import Engine
    from fasterseg.stream.pipeline import Progress, Summary
    from fasterseg.stream.sinks import H264, Ids
    from fasterseg.types import Size

PROGRESS_INTERVAL_S: Final = 0.2
PLAIN_INTERVAL_S: Final = 10.0


def infer(
    source: Annotated[str, typer.Argument(metavar="INPUT", help=INPUT_HELP)],
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUTPUT",
            help="File, folder or %06d.png; with several formats what their names start with; - "
            "for stdout, display: for a window, null: for nothing. Default: INPUT's name with "
            "_fasterseg, in this folder.",
        ),
    ] = None,
    engine: EngineOption = "auto",
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tail: TailOption = "auto",
    streams: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="openvino: frames computed at the same time, 1 or 2, each on its share of the "
            "threads: more frames a second of a file, each of them later.",
        ),
    ] = 1,
    pin: PinOption = False,
    plugins: PluginsOption = "auto",
    no_build: NoBuildOption = False,
    fit: Annotated[
        str,
        typer.Option(metavar="FIT", help="stretch frames to the engine's size, or letterbox them."),
    ] = "stretch",
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="overlay, classmap (ids: lossless grey .mkv of a video, PNG of images or where "
            "OUTPUT is a folder), classmap-png (always PNG), rle (JSON lines with COCO masks), "
            "stats; several joined by commas.",
        ),
    ] = "overlay",
    alpha: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="A", help="Opacity of the overlay's colours.")
    ] = 0.5,
    contours: Annotated[
        bool, typer.Option("--contours", help="Draw the borders between classes on the overlay.")
    ] = False,
    legend: Annotated[
        bool, typer.Option("--legend", help="Add colours and class names beside the overlay.")
    ] = False,
    palette: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Other colours: bdd100k, camvid, cityscapes, distinct or voc (any model), or a "
            ".csv, .json or .toml file of class, r, g, b.",
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="IDS",
            help="Ids in class maps and rle: trainid, or labelid (those of the data set's files).",
        ),
    ] = "trainid",
    indexed: Annotated[
        bool,
        typer.Option("--indexed", help="PNG class maps with a palette: viewers show colours."),
    ] = False,
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="Let stats list every frame's shares.")
    ] = False,
    h264: Annotated[
        str,
        typer.Option(
            "--h264",
            metavar="HOW",
            help="Overlay videos: fast, or small (a quarter smaller, three times the CPU time).",
        ),
    ] = "fast",
    start: StartOption = "0",
    limit: LimitOption = None,
    stride: StrideOption = 1,
    loop: LoopOption = 1,
    max_fps: MaxFpsOption = None,
    input_format: InputFormatOption = None,
    input_size: InputSizeOption = None,
    input_fps: InputFpsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    json_: JsonOption = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress and no closing table.")
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
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
      fasterseg-infer drive.mp4 out --format overlay,classmap,rle,stats --json facts.json
      fasterseg-infer drive.mp4 - --format rle | jq '.classes[].share'
      fasterseg-infer camera:0 out.mp4 --limit 300
      fasterseg-infer drive.mp4 clip.mp4 --start 1:30 --limit 250 --max-fps 10
      ffmpeg -i in.avi -f matroska - | fasterseg-infer - out.mp4
      fasterseg-infer street.jpg --size 512x1024 --model fasterseg-student
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.errors import UsageError
    from fasterseg.preprocess import FITS, check_orientation
    from fasterseg.runtime.select import EngineRequest, check_request, open_engine
    from fasterseg.stream.outputs import plan_outputs
    from fasterseg.stream.pipeline import run_pipeline
    from fasterseg.stream.segmenter import Segmenter
    from fasterseg.stream.sinks import SinkOptions, check_options, open_sinks
    from fasterseg.stream.sinks_raw import RawSink
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
        tail=tail,
        streams=streams,
        pin=pin,
        plugins=plugins,
        may_build=not no_build,
    )
    check_request(request)
    if output == "-" and json_ == "-":
        raise UsageError("OUTPUT - and --json - both want stdout; write one to a file")
    options = SinkOptions(
        alpha,
        contours,
        legend,
        palette,
        cast("Ids", labels),
        indexed,
        per_frame,
        cast("H264", h264),
    )
    wanted = [] if output == "null:" else [name.strip() for name in formats.split(",")]
    taken = source_options(
        stride=stride,
        limit=limit,
        start=start,
        loop=loop,
        max_fps=max_fps,
        input_format=input_format,
        input_size=input_size,
        input_fps=input_fps,
    )
    opened = open_source(source, taken)

    def factory(frame_size: Size) -> Engine:
        return open_engine(request, frame_size, note)

    with Segmenter(factory, fit) as segmenter:
        try:
            # Before the engine: a wrong output or size must not cost a build.
            if wanted:
                plans = plan_outputs(output, wanted, opened, overwrite=overwrite)
                check_options(plans, options)
            assert opened.size is not None
            if request.size is not None:
                check_orientation(request.size, opened.size)
            segmenter.open(opened.size)
            sinks = (
                open_sinks(output, wanted, opened, segmenter.labels, options, overwrite=overwrite)
                if wanted
                else []
            )
        except BaseException:
            opened.close()
            raise
        for sink in sinks:
            if isinstance(sink, RawSink) and not quiet:
                note(sink.hint(opened.size, opened.fps, segmenter.labels))
        for text in () if quiet else opened.notes:
            note(f"note: {text}")
        meter = _Meter(enabled=not quiet)
        summary = run_pipeline(opened, segmenter, sinks, on_frame=meter.show)
        meter.clear()
        spec = segmenter.open(opened.size).spec
    for warning in summary.warnings:
        note(warning, "warning")
    if not quiet:
        _print_summary(summary)
    if json_ is not None:
        facts = {**summary.to_json(), "engine": json.loads(spec.to_json())}
        write_json(json_, json.dumps(facts, indent=2))


class _Meter:
    """Progress on stderr: one line redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._terminal = draws_progress()
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
    lost = f", {summary.lost_frames} lost" if summary.lost_frames else ""
    note(
        f"{summary.frames} frames{dropped}{lost} in {summary.seconds:.1f} s: "
        f"{summary.fps:.1f} FPS end to end (decoding to written files)",
        summary=summary.to_json(),
    )
    if for_machines():
        return
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
