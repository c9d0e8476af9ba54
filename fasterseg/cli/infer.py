"""`fasterseg-infer`: segment an image, a folder, a video or a camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from fasterseg.cli.inputs import (
    INPUT_HELP,
    AlsoOption,
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
)
from fasterseg.cli.settings import ConfigOption, PrintConfigOption, settings_text
from fasterseg.cli.smoothing import SmoothOption, smooth_options
from fasterseg.cli.viewing import ViewOption

if TYPE_CHECKING:
    from fasterseg.stream.sinks import H264, Ids


def infer(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="INPUT", help=INPUT_HELP)] = None,
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUTPUT",
            help="File, folder or %06d.png; with several formats what their names start with; - "
            "for stdout, display: for a window, null: for nothing, rtsp://USER:PASSWORD@HOST/NAME "
            "(rtmp://, udp://, ...) to push it as H.264. Default: INPUT's name with _fasterseg, in "
            "this folder.",
        ),
    ] = None,
    also: AlsoOption = None,
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
        bool,
        typer.Option(
            "--contours/--no-contours",
            show_default=False,
            help="Draw the borders between classes on the overlay.",
        ),
    ] = False,
    legend: Annotated[
        bool,
        typer.Option(
            "--legend/--no-legend",
            show_default=False,
            help="Add colours and class names beside the overlay.",
        ),
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
        typer.Option(
            "--indexed/--no-indexed",
            show_default=False,
            help="PNG class maps with a palette: viewers show colours.",
        ),
    ] = False,
    per_frame: Annotated[
        bool,
        typer.Option(
            "--per-frame/--no-per-frame",
            show_default=False,
            help="Let stats list every frame's shares.",
        ),
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
    smooth: SmoothOption = False,
    view: ViewOption = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite/--no-overwrite", show_default=False, help="Replace the output."),
    ] = False,
    json_: JsonOption = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet/--no-quiet", "-q", show_default=False, help="No progress and no closing table."
        ),
    ] = False,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
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
      fasterseg-infer camera:0 maps/ --also camera:1 --also rtsp://gate/live --format classmap
      fasterseg-infer camera:0 rtsp://server:8554/front --reconnect-attempts -1
      fasterseg-infer drive.mp4 clip.mp4 --start 1:30 --limit 250 --max-fps 10
      ffmpeg -i in.avi -f matroska - | fasterseg-infer - out.mp4
      fasterseg-infer street.jpg --size 512x1024 --model fasterseg-student
      fasterseg-infer --config front.toml
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.cli.infer_many import run_several
    from fasterseg.cli.infer_run import Job, run_one
    from fasterseg.errors import UsageError
    from fasterseg.preprocess import FITS
    from fasterseg.runtime.select import EngineRequest, check_request
    from fasterseg.stream.outputs import is_address
    from fasterseg.stream.sinks import SinkOptions

    if config is not None:
        note(f"settings: {config}")
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
        reconnect_attempts=reconnect_attempts,
        reconnect_interval_s=reconnect_interval,
    )
    nothing = output == "null:" or (output is None and view is not None)
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
        pushed=is_address(output),
    )
    job = Job(
        output=output,
        formats=() if nothing else tuple(name.strip() for name in formats.split(",")),
        request=request,
        fit=fit,
        smooth=smooth_options(smooth),
        taken=taken,
        options=options,
        overwrite=overwrite,
        view=view,
        json=json_,
        quiet=quiet,
    )
    if print_config:
        print(settings_text(context))
    elif source is None:
        raise UsageError(
            "INPUT is missing: give a file, folder, camera or URL, or input = ... with --config"
        )
    elif also:
        run_several(job, (source, *also))
    else:
        run_one(job, source)


app = new_app("")
app.command(epilog=EPILOG, no_args_is_help=True)(infer)


def run() -> None:
    """Console script `fasterseg-infer`."""
    run_app(app)
