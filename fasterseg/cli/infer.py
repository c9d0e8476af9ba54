"""`fasterseg-infer`: segment an image, a folder, a video or a camera."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fasterseg.cli.inputs import (
    INPUT_HELP,
    DropOption,
    InputFormatOption,
    InputFpsOption,
    InputSizeOption,
    LimitOption,
    LoopOption,
    MaxFpsOption,
    ReconnectAttemptsOption,
    ReconnectIntervalOption,
    StallTimeoutOption,
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
    new_app,
    note,
    parse_size,
    run_app,
    write_json,
)
from fasterseg.cli.progress import Meter, tell_end, told_losses
from fasterseg.cli.viewing import ViewOption, close_pages, introduce, open_pages

if TYPE_CHECKING:
    from fasterseg.runtime.base import Engine
    from fasterseg.serve.view import ViewSink
    from fasterseg.stream.pipeline import Summary
    from fasterseg.stream.sinks import H264, Ids
    from fasterseg.types import Size


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
    reconnect_attempts: ReconnectAttemptsOption = None,
    reconnect_interval: ReconnectIntervalOption = 1.0,
    stall_timeout: StallTimeoutOption = 10.0,
    drop: DropOption = "auto",
    view: ViewOption = None,
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
      fasterseg-infer rtsp://camera/stream --view http://127.0.0.1:8080
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
        viewed=view is not None,
    )
    nothing = output == "null:" or (output is None and view is not None)
    wanted = [] if nothing else [name.strip() for name in formats.split(",")]
    taken = source_options(
        stride=stride,
        limit=limit,
        start=start,
        loop=loop,
        max_fps=max_fps,
        input_format=input_format,
        input_size=input_size,
        input_fps=input_fps,
        reconnect_attempts=reconnect_attempts,
        reconnect_interval=reconnect_interval,
        stall_timeout=stall_timeout,
        drop=drop,
    )
    with told_losses():
        opened = open_source(source, taken)
    pages: list[ViewSink] = []

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
            pages = open_pages(view, opened, options)
            introduce(pages, segmenter.open(opened.size))
            sinks = (
                open_sinks(output, wanted, opened, segmenter.labels, options, overwrite=overwrite)
                if wanted
                else []
            )
        except BaseException:
            close_pages(pages)
            opened.close()
            raise
        for sink in sinks:
            if isinstance(sink, RawSink) and not quiet:
                note(sink.hint(opened.size, opened.fps, segmenter.labels))
        for text in () if quiet else opened.notes:
            note(f"note: {text}")
        spec = segmenter.open(opened.size).spec
        meter = Meter(enabled=not quiet)

        def tell(summary: Summary) -> None:
            meter.clear()
            tell_end(summary, quiet=quiet)
            if json_ is not None:
                facts = {**summary.to_json(), "engine": json.loads(spec.to_json())}
                write_json(json_, json.dumps(facts, indent=2))

        with told_losses():
            summary = run_pipeline(
                opened, segmenter, [*pages, *sinks], on_frame=meter.show, on_failure=tell
            )
    tell(summary)


app = new_app("")
app.command(epilog=EPILOG, no_args_is_help=True)(infer)


def run() -> None:
    """Console script `fasterseg-infer`."""
    run_app(app)
