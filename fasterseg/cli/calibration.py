"""`fasterseg-bench calibrate`: how well the rows of a latency table predict whole networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

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

    from fasterseg.bench.begin import Request
    from fasterseg.bench.draw import Draw
    from fasterseg.bench.tables import TableFile

CALIBRATE_EPILOG: Final = (
    "\b\nExamples:\n"
    "  fasterseg-bench calibrate --size 512x1024\n"
    "  fasterseg-bench calibrate --table T.json --limit-minutes 10\n"
    "  fasterseg-bench calibrate --table T.json --statistic cpu_min\n\n"
) + EPILOG


def calibrate(
    table: TableOption = None,
    size: TableSizeOption = DEFAULT_SIZE,
    engine: EngineNameOption = "onnxruntime",
    precision: PrecisionOption = "auto",
    limit_minutes: LimitMinutesOption = None,
    statistic: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Measure nothing: judge a complete table by another statistic (p50, min, cpu_p50, "
            "cpu_min), which prices are from then on.",
        ),
    ] = None,
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
    if statistic is not None:
        _rejudge(request, statistic)
        return
    file = known_table(request)
    left = _measure_networks(file, limit_minutes)
    if left:
        note(f"{left} measurements are left; the same command goes on")
        return
    _judge(file)


def _measure_networks(file: TableFile, limit_minutes: float | None) -> int:
    from fasterseg.bench.calibrate import measure_nets
    from fasterseg.bench.quiet import quiet_for
    from fasterseg.bench.whole import deployed

    drawn = _drawn(file)
    _check_rows(file)
    warn_busy()
    opener, frames = deployed(file)
    reporter = Reporter("networks")
    limit_s = seconds_of(limit_minutes)
    return measure_nets(
        file, drawn, opener, frames, reporter, limit_s=limit_s, quiet=quiet_for(file)
    )


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


def _rejudge(request: Request, statistic: str) -> None:
    """Another statistic for a table of any machine; one that is worse off keeps its own."""
    from fasterseg.bench.calibrate import rejudge
    from fasterseg.bench.tables import TableFile

    file = TableFile.load(request.path) if request.path else known_table(request)
    before = file.statistic
    report = rejudge(file, _drawn(file), statistic)
    print("\n".join(report_lines(report)))
    if report["refusal"]:
        raise PerformanceError(f"{report['refusal']}; {file.path} still prices by {before}")
    file.save()
    print(f"{file.path} prices by {statistic} (before: {before})")


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
        # Tables judged by earlier versions lack this line.
        *([_line("single convolutions", None, report["singles"])] if "singles" in report else []),
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
