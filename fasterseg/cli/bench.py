"""`fasterseg-bench`: how fast each engine is here, with what it takes to believe the number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.accuracy import accuracy, submission
from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    new_app,
    note,
    run_app,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fasterseg.bench.engines import Opener, Suite
    from fasterseg.bench.records import BenchRecord, Cell, CellRatio
    from fasterseg.bench.timing import TimingProtocol
    from fasterseg.types import LatencyStats, Size

DEFAULT_ENGINES = ("onnxruntime",)
DEFAULT_SIZES = ("512x1024", "768x1536", "1024x2048")
RESULTS = Path("benchmarks/results")

app = new_app(
    "Time engines on this machine: median and percentiles of the model alone and from host frames "
    "to labels, with label agreement. Inputs change from run to run; warm-up is thrown away."
)

EnginesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="A backend (onnxruntime, torch) or an engine file (.onnx); give it again for more. "
        f"Default: {', '.join(DEFAULT_ENGINES)}.",
    ),
]
SizesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Frame size in pixels, height first; give it again for more. "
        f"Default: {', '.join(DEFAULT_SIZES)}.",
    ),
]
BatchOption = Annotated[int, typer.Option(min=1, metavar="N", help="Frames per call.")]
ProtocolOption = Annotated[
    str,
    typer.Option(
        help="full (2 s warm-up, >= 200 runs and 3 s), quick (1 s, >= 20 runs and 2 s) or row "
        "(3 runs, >= 20 runs and 0.3 s). Stored; records of two protocols never compare."
    ),
]
CpuTimeOption = Annotated[
    bool,
    typer.Option(
        "--cpu-time",
        help="Also the CPU time of the whole process per run, over all threads: steady on a "
        "shared machine, above all with --threads 1.",
    ),
]
SaveOption = Annotated[
    bool,
    typer.Option("--save", help=f"Append a record to {RESULTS}/<device>/ of the current folder."),
]


@app.callback(invoke_without_command=True, no_args_is_help=False, epilog=EPILOG)
def bench(
    context: typer.Context,
    engine: EnginesOption = None,
    model: ModelOption = "fasterseg-camvid",
    size: SizesOption = None,
    precision: PrecisionOption = "auto",
    batch: BatchOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    protocol: ProtocolOption = "full",
    cpu_time: CpuTimeOption = False,
    json: JsonOption = None,
    save: SaveOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Time engines: every --engine at every --size."""
    if context.invoked_subcommand is not None:
        return
    from fasterseg.bench.engines import Suite, run_suite
    from fasterseg.types import Size

    suite = Suite(
        engines=tuple(engine or DEFAULT_ENGINES),
        sizes=tuple(Size.parse(text) for text in size or DEFAULT_SIZES),
        batch=batch,
        precision=precision,
        device=device,
        threads=threads,
        protocol=protocol_named(protocol),
        cpu_time=cpu_time,
    )
    record = run_suite(suite, engine_opener(model, suite, once(note)), note)
    report(record, json)
    if save:
        note(f"saved {record.save(RESULTS)}")


app.command(epilog=EPILOG, short_help="Score an engine on a labelled data set.")(accuracy)
app.command(epilog=EPILOG, short_help="Make files for the Cityscapes server.")(submission)


@app.command(epilog=EPILOG)
def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="Record (JSON) to compare with.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Record of the same device.")],
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Ratios of two records, B over A: below 1, B is faster.

    Records of different devices, protocols or precisions are refused.
    """
    from fasterseg.bench.records import BenchRecord
    from fasterseg.bench.records import compare as compare_records

    old, new = BenchRecord.load(before), BenchRecord.load(after)
    ratios = compare_records(old, new)
    print(f"A: {old.model}, {old.commit}, {old.created}")
    print(f"B: {new.model}, {new.commit}, {new.created}")
    print("\n".join(columns(_RATIO_HEAD, [_ratio_row(ratio) for ratio in ratios])))


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


def engine_opener(model: str, suite: Suite, on_note: Callable[[str], None]) -> Opener:
    """What opens the engines of a suite: `runtime.select`, asked for one model."""
    from fasterseg.runtime.base import Engine
    from fasterseg.runtime.select import EngineRequest, open_engine

    def open_one(engine: str, precision: str, device: str, size: Size) -> Engine:
        request = EngineRequest(
            model=model,
            engine=engine,
            precision=precision,
            device=device,
            size=size,
            batch=suite.batch,
            threads=suite.threads,
        )
        return open_engine(request, size, on_note)

    return open_one


def once(on_note: Callable[[str], None]) -> Callable[[str], None]:
    """Pass each different line on the first time only."""
    seen: set[str] = set()

    def pass_new(line: str) -> None:
        if line not in seen:
            seen.add(line)
            on_note(line)

    return pass_new


def report(record: BenchRecord, json_target: str | None) -> None:
    """Table to stdout, unless the JSON goes there; warnings to stderr."""
    lines = table(record)
    if json_target == "-":
        note("\n".join(lines))
    else:
        print("\n".join(lines))
    for cell in record.cells:
        for warning in cell.warnings:
            note(f"{cell.engine} {cell.precision} {cell.size}: {warning}", "warning")
    if json_target is not None:
        write_json(json_target, record.to_json())


_HEAD = (
    "engine", "precision", "size", "batch", "threads", "tail", "model p50",
    "host_to_labels p50", "p90", "p95", "p99", "cov", "fps", "agreement",
)  # fmt: skip
_RATIO_HEAD = (
    "engine", "precision", "size", "batch",
    "model A", "model B", "B/A", "host_to_labels A", "host_to_labels B", "B/A",
)  # fmt: skip

SCOPES = (
    "model: the engine's own work on frames already in its input buffer, tail included, no copies "
    "(device clock on a GPU). host_to_labels: uint8 frames in host memory to uint8 labels in host "
    "memory, copies in. Decoding, resizing and drawing are in neither. Times in ms per call; "
    "fps = 1000 x batch / host_to_labels p50. agreement: share of all pixels labelled as "
    "the reference does (fp32 on the CPU, torch where it is installed, else onnxruntime); - for "
    "the reference itself, or without it."
)


def table(record: BenchRecord) -> list[str]:
    """The record as lines of text: device, cells, what the scopes mean."""
    with_cpu = any(cell.host_to_labels_cpu for cell in record.cells)
    head = [*_HEAD, "cpu p50"] if with_cpu else list(_HEAD)
    protocol = record.protocol
    warm_up = f"{protocol.warmup_s:g} s" if protocol.warmup_s else f"{protocol.warmup_runs} runs"
    return [
        f"{record.device.name} ({record.device.id}), {record.model}"
        + ("" if record.trained else " (untrained weights: times hold, labels mean nothing)"),
        f"protocol {protocol.name}: {warm_up} warm-up, then at least {protocol.min_runs} runs and "
        f"{protocol.min_s:g} s",
        "",
        *columns(head, [_row(cell, with_cpu) for cell in record.cells]),
        "",
        SCOPES,
    ]


def _row(cell: Cell, with_cpu: bool) -> list[str]:
    stats = cell.host_to_labels
    agreement = "-" if cell.label_agreement is None else _floored_percent(cell.label_agreement)
    row = [
        cell.engine,
        cell.precision,
        str(cell.size),
        str(cell.batch),
        "default" if cell.threads is None else str(cell.threads),
        cell.tail,
        _ms(cell.model),
        *(_number(ms) for ms in (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms)),
        f"{stats.cov:.3f}",
        _number(cell.fps_host_to_labels),
        agreement,
    ]
    return [*row, _ms(cell.host_to_labels_cpu)] if with_cpu else row


def _ratio_row(ratio: CellRatio) -> list[str]:
    old, new = ratio.before, ratio.after
    return [
        new.engine,
        new.precision,
        str(new.size),
        str(new.batch),
        _ms(old.model),
        _ms(new.model),
        "-" if ratio.model is None else f"{ratio.model:.3f}",
        _ms(old.host_to_labels),
        _ms(new.host_to_labels),
        f"{ratio.host_to_labels:.3f}",
    ]


def _ms(stats: LatencyStats | None) -> str:
    return "-" if stats is None else _number(stats.p50_ms)


def _number(value: float) -> str:
    """Four significant digits, without exponent."""
    digits = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:.{digits}f}"


def _floored_percent(share: float) -> str:
    """Percent with three digits, rounded down: 100.000% means every pixel."""
    import math

    return f"{math.floor(share * 1e5) / 1e3:.3f}%"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns under a head."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
