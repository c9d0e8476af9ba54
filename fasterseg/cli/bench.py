"""`fasterseg-bench`: how fast each engine is here, with what it takes to believe the number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fasterseg.cli.accuracy import accuracy, submission
from fasterseg.cli.bench_options import (
    DEFAULT_ENGINES,
    DEFAULT_SIZES,
    RESULTS,
    BatchOption,
    CpuTimeOption,
    EnginesOption,
    InterleaveOption,
    MaxBatchOption,
    MaxDelayOption,
    PeersOption,
    PerLayerOption,
    PrecisionsOption,
    ProtocolOption,
    SaveOption,
    ShareOption,
    SizesOption,
    StreamsOption,
    TailsOption,
    VideoLimitOption,
    VideoOption,
    VideoOutputOption,
)
from fasterseg.cli.bench_records import compare, report
from fasterseg.cli.calibration import CALIBRATE_EPILOG, calibrate
from fasterseg.cli.ops import OPS_EPILOG, ops
from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    ModelOption,
    PinOption,
    ThreadsOption,
    new_app,
    note,
    run_app,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fasterseg.bench.cells import EndToEnd
    from fasterseg.bench.records import BenchRecord
    from fasterseg.bench.streams import Share
    from fasterseg.bench.suite import Access, Candidate, Graphs, Suite
    from fasterseg.bench.timing import TimingProtocol
    from fasterseg.graph.signature import Stage
    from fasterseg.runtime.base import Engine
    from fasterseg.runtime.select import EngineRequest
    from fasterseg.stream.batching import SharedEngine
    from fasterseg.types import Precision

app = new_app(
    "Time engines on this machine: median and percentiles of the model alone and from host frames "
    "to labels, with label agreement. Inputs change from run to run; warm-up is thrown away."
)


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EPILOG)
def bench(
    context: typer.Context,
    engine: EnginesOption = None,
    model: ModelOption = "fasterseg-camvid",
    size: SizesOption = None,
    precision: PrecisionsOption = "auto",
    batch: BatchOption = "1",
    streams: StreamsOption = "1",
    share: ShareOption = False,
    max_batch: MaxBatchOption = None,
    max_delay_ms: MaxDelayOption = None,
    peer: PeersOption = None,
    interleave: InterleaveOption = False,
    video: VideoOption = None,
    video_output: VideoOutputOption = "overlay",
    video_limit: VideoLimitOption = None,
    per_layer: PerLayerOption = False,
    threads: ThreadsOption = None,
    tail: TailsOption = "auto",
    pin: PinOption = False,
    device: DeviceOption = "auto",
    protocol: ProtocolOption = "full",
    cpu_time: CpuTimeOption = False,
    json: JsonOption = None,
    save: SaveOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Time engines: every --engine, --precision and --peer at every --size."""
    if context.invoked_subcommand is not None:
        return
    from fasterseg.bench.engines import run_suite
    from fasterseg.bench.peers import Peer
    from fasterseg.bench.suite import Suite
    from fasterseg.cli.end_to_end import filming
    from fasterseg.types import Size

    suite = Suite(
        engines=tuple(engine or DEFAULT_ENGINES),
        sizes=tuple(Size.parse(text) for text in size or sizes_of(engine or DEFAULT_ENGINES)),
        batches=numbers("--batch", batch),
        streams=numbers("--streams", streams),
        precisions=tuple(name.strip() for name in precision.split(",")),
        device=device,
        threads=threads,
        protocol=protocol_named(protocol),
        cpu_time=cpu_time,
        interleave=interleave,
        peers=tuple(Peer.parse(text) for text in peer or ()),
        per_layer=per_layer,
        tails=tuple(name.strip() for name in tail.split(",")),
        pin=pin,
        share=sharing(share, max_batch, max_delay_ms),
    )
    film = filming(video, video_output, video_limit) if video is not None else None
    record = run_suite(suite, access_to(model, suite, film), note)
    show(record, json)
    if save:
        note(f"saved {record.save(RESULTS)}")


app.command(epilog=EPILOG, short_help="Score an engine on a labelled data set.")(accuracy)
app.command(epilog=EPILOG, short_help="Make files for the Cityscapes server.")(submission)
app.command(epilog=OPS_EPILOG, short_help="Measure this device's latency table.")(ops)
app.command(epilog=CALIBRATE_EPILOG, short_help="Fit and judge a latency table.")(calibrate)


app.command(epilog=EPILOG, no_args_is_help=True)(report)
app.command(epilog=EPILOG)(compare)


def run() -> None:
    """Entry of the console script."""
    run_app(app)


def protocol_named(name: str) -> TimingProtocol:
    """The timing protocol of that name.

    Raises:
        UnknownNameError: there is none; the message lists the known ones.
    """
    from fasterseg.bench.timing import PROTOCOLS
    from fasterseg.errors import UnknownNameError
    from fasterseg.registry import unknown

    if name not in PROTOCOLS:
        raise UnknownNameError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def sizes_of(engines: Sequence[str]) -> Sequence[str]:
    """The sizes to measure where none is named: that of the engine files, if they share one."""
    from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
    from fasterseg.runtime.plan_files import SUFFIXES, read_facts

    found = set()
    for name in engines:
        if name.endswith(".onnx"):
            found.add(OnnxRuntimeEngine.read_spec(Path(name)).size)
        elif name.endswith(SUFFIXES):
            found.add(read_facts(Path(name)).spec.size)
        else:
            return DEFAULT_SIZES
    fixed = [str(size) for size in found if size is not None]
    return fixed if len(fixed) == len(found) == 1 else DEFAULT_SIZES


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read "1,4".

    Raises:
        UsageError: something among them is no number from 1 up.
    """
    from fasterseg.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option} {text} is not a number from 1 up, or several as in 1,4")
    return tuple(dict.fromkeys(map(int, parts)))


def sharing(share: bool, max_batch: int | None, max_delay_ms: float | None) -> Share | None:
    """How streams share an engine; None where each has its own.

    Raises:
        UsageError: limits of batches without --share.
    """
    from fasterseg.bench.streams import Share
    from fasterseg.errors import UsageError

    given = {"max_batch": max_batch, "max_delay_ms": max_delay_ms}
    limits = {name: value for name, value in given.items() if value is not None}
    if share:
        return Share(**limits)  # type: ignore[arg-type]
    if limits:
        raise UsageError("--max-batch and --max-delay-ms are limits of --share; add it")
    return None


def request_of(model: str, suite: Suite, candidate: Candidate) -> EngineRequest:
    """What is asked of `runtime.select` for one thing to measure."""
    from fasterseg.runtime.select import EngineRequest

    return EngineRequest(
        model=model,
        engine=candidate.engine,
        precision=candidate.precision,
        device=candidate.device,
        size=candidate.size,
        batch=candidate.engine_batch,
        threads=suite.threads,
        tail=candidate.tail,
        pin=suite.pin and candidate.engine == "openvino",
    )


def access_to(model: str, suite: Suite, film: Callable[[Engine], EndToEnd] | None) -> Access:
    """How a suite gets at engines of one model."""
    from fasterseg.bench.suite import Access
    from fasterseg.runtime.base import PIXEL_AGREEMENT
    from fasterseg.runtime.select import check_request, open_engine

    on_note = once(note)
    return Access(
        opener=lambda c: open_engine(request_of(model, suite, c), c.size, on_note),
        check=lambda c: check_request(request_of(model, suite, c)),
        graphs=graphs_of(model),
        film=film,
        limits=PIXEL_AGREEMENT,
        sharer=share_engine,
    )


def share_engine(engine: Engine, share: Share) -> SharedEngine:
    """An engine that several streams use; it stays open."""
    from fasterseg.stream.batching import SharedEngine

    return SharedEngine(engine, share.max_batch, share.max_delay_ms)


def graphs_of(model: str) -> Graphs:
    """What gives the ONNX of a suite's engines, of those that ONNX Runtime runs."""
    from fasterseg.graph.emit import EmitOptions
    from fasterseg.runtime.model import resolve_model
    from fasterseg.runtime.select import DEFAULT_BACKEND
    from fasterseg.runtime.store import onnx_bytes

    def graph(candidate: Candidate, precision: Precision, stage: Stage) -> bytes | None:
        path = Path(candidate.engine if candidate.engine.endswith(".onnx") else model)
        if path.suffix == ".onnx":
            return path.read_bytes() if stage == "labels" else None
        if candidate.engine not in ("auto", DEFAULT_BACKEND):
            return None
        options = EmitOptions(stage, precision, candidate.batch)
        return onnx_bytes(resolve_model(model), candidate.size, options)

    return graph


def once(on_note: Callable[[str], None]) -> Callable[[str], None]:
    """Pass each different line on the first time only."""
    seen: set[str] = set()

    def pass_new(line: str) -> None:
        if line not in seen:
            seen.add(line)
            on_note(line)

    return pass_new


def show(record: BenchRecord, json_target: str | None) -> None:
    """Table to stdout, unless the JSON goes there; warnings to stderr."""
    from fasterseg.cli.bench_text import table

    lines = table(record)
    if json_target == "-":
        note("\n".join(lines))
    else:
        print("\n".join(lines))
    for cell in record.cells:
        for warning in cell.warnings:
            note(f"{cell.title} {cell.size}: {warning}", "warning")
    if json_target is not None:
        write_json(json_target, record.to_json())
