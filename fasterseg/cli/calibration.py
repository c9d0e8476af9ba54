"""`fasterseg-bench calibrate`: how well the rows of a latency table predict whole networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fasterseg.cli.ops import (
    DEFAULT_SIZE,
    TABLES,
    EngineNameOption,
    LimitMinutesOption,
    Reporter,
    TableOption,
    TableSizeOption,
    known_table,
    seconds_of,
    warn_busy,
)
from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    LogFormat,
    LogFormatOption,
    PrecisionOption,
    note,
)
from fasterseg.errors import MissingLatencyError, PerformanceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fasterseg.bench.draw import Draw
    from fasterseg.bench.tables import TableFile

CALIBRATE_EPILOG: Final = (
    "\b\nExamples:\n"
    "  fasterseg-bench calibrate --size 512x1024\n"
    "  fasterseg-bench calibrate --table T.json --limit-minutes 10\n\n"
) + EPILOG


def calibrate(
    table: TableOption = None,
    size: TableSizeOption = DEFAULT_SIZE,
    engine: EngineNameOption = "onnxruntime",
    precision: PrecisionOption = "auto",
    limit_minutes: LimitMinutesOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Measure the whole networks that were drawn before the table, fit, and say how good it is.

    Half as many networks settle the fit as judge it; beside the error stand the best constant, a
    second measurement of the same networks, and multiply-adds. A fit with a mean error above 10 %
    is not kept (exit code 6).
    """
    from fasterseg.bench.begin import Request
    from fasterseg.types import Size

    request = Request(Size.parse(size), engine, precision, path=table, root=TABLES)
    file = known_table(request)
    left = _measure_networks(file, limit_minutes)
    if left:
        note(f"{left} measurements are left; the same command goes on")
        return
    _judge(file)


def _measure_networks(file: TableFile, limit_minutes: float | None) -> int:
    from fasterseg.bench.calibrate import measure_nets
    from fasterseg.bench.engines import render_frames
    from fasterseg.bench.snippets import network_opener
    from fasterseg.graph.emit import EmitOptions

    drawn = _drawn(file)
    _check_rows(file)
    warn_busy()
    options = EmitOptions(precision=file.precision, batch=file.batch)
    conditions = file.conditions
    opener = network_opener(
        file.backend, conditions["device"], conditions["threads"], file.size, options
    )
    frames = render_frames(file.size, file.batch, 1)[0]
    reporter = Reporter("networks")
    return measure_nets(file, drawn, opener, frames, reporter, limit_s=seconds_of(limit_minutes))


def _drawn(file: TableFile) -> Draw:
    from fasterseg.bench.draw import redraw

    if file.space is None or file.draw is None:
        raise UsageError(
            f"{file.path} is for single networks, so none were drawn to judge it by; measure a "
            "table of a search space: fasterseg-bench ops --table FILE"
        )
    return redraw(file.space, file.size, file.draw, str(file.path))


def _check_rows(file: TableFile) -> None:
    """Every row of the space, before minutes are spent on networks."""
    assert file.space is not None
    missing = file.missing(file.space.specs(file.size))
    if missing:
        raise MissingLatencyError(
            f"{file.path} has no row for {len(missing)} operators of its space, such as "
            f"{missing[0].key()}. Measure them on this device: fasterseg-bench ops --table "
            f"{file.path} --missing-only"
        )


def _judge(file: TableFile) -> None:
    from fasterseg.bench.calibrate import judge

    report = judge(file, _drawn(file))
    file.save()
    print("\n".join(report_lines(report)))
    if report["refusal"]:
        raise PerformanceError(
            f"{report['refusal']}; the fit is not kept. Measure on an idle machine: "
            f"fasterseg-bench ops --table {file.path} --overwrite"
        )


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """How good predictions are, for people."""
    from fasterseg.cli.bench_text import columns

    head = ("prediction", "raw error", "p90", "error", "p90", "within 10 %", "tau")
    rows = [
        _line(
            f"rows {entry['granularity']}, {entry['statistic']}", entry["raw"], entry["calibrated"]
        )
        for entry in report["predictors"]
    ]
    rows += [
        _line("multiply-adds", None, report["macs"]),
        _line("best constant", None, report["constant"]),
        _line("second measurement", report["repeat"], None),
    ]
    return [
        f"{report['held_out_nets']} held-out networks (seed {report['seed']}), "
        f"{report['fastest_ms']:.2f} to {report['slowest_ms']:.2f} ms "
        f"({report['range']:.1f}x, {report['statistic']}); fit on {report['calibration_nets']} "
        "others",
        "",
        *columns(head, rows),
        "",
        f"prices are of rows {report['granularity']}: the better ones on the networks of the fit, "
        "each left out in turn",
        *(f"{'yes' if reached else 'NO ':3}  {goal}" for goal, reached in report["goals"].items()),
    ]


def _line(
    name: str, raw: Mapping[str, Any] | None, calibrated: Mapping[str, Any] | None
) -> list[str]:
    best = calibrated or raw or {}
    cells = [_percent(entry, key) for entry in (raw, calibrated) for key in ("mean", "p90")]
    tau = best.get("tau")
    return [name, *cells, _percent(best, "within_10"), "-" if tau is None else f"{tau:.3f}"]


def _percent(entry: Mapping[str, Any] | None, key: str) -> str:
    return "-" if entry is None else f"{100 * entry[key]:.1f} %"
