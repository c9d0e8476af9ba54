"""The sections of a report that tell of the device: its table, its time, what is handed over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from fasterseg import plots
from fasterseg.arch.plan import plan
from fasterseg.bench.draw import redraw
from fasterseg.bench.tables import TableFile
from fasterseg.retarget.report_parts import Figure, Section, Table, absent, percent
from fasterseg.retarget.run_files import RunFiles


def fit_section(run: RunFiles) -> Section:
    """How well the table predicts whole networks."""
    title = "Does the table predict networks?"
    file = run.table
    if file is None:
        return absent(title, "measure")
    if run.is_nominal:
        return Section(title, ["The table is a formula: nothing was measured, nothing to compare."])
    groups = _drawn_points(file) | _candidate_points(run)
    blocks: list[Table | Figure] = []
    if file.report:
        blocks.append(_quality_table(file.report))
    if groups:
        labels = (f"predicted, ms ({file.statistic})", "measured, ms")
        note = "Line: equal. Band: within 10 %."
        blocks.append(Figure(plots.agreement(groups, labels), note))
    if not blocks:
        return Section(title, ["No network has been measured as a whole yet."])
    return Section(title, _goals(file.report or {}), blocks)


def _drawn_points(file: TableFile) -> dict[str, list[tuple[float, float]]]:
    """(predicted, measured) of the networks that the table was calibrated and judged with."""
    if file.draw is None or file.space is None or not file.nets:
        return {}
    drawn = redraw(file.space, file.size, file.draw, str(file.path))
    table, name = file.table(), f"{file.statistic}_ms"
    found = {}
    parts = {"calibration networks": drawn.calibration, "held-out networks": drawn.held_out}
    for part, genotypes in parts.items():
        found[part] = [
            (table.price(plan(one, file.size)).ms, statistics.fmean(t[name] for t in times))
            for one in genotypes
            if (times := file.nets.get(one.digest()))
        ]
    return {part: points for part, points in found.items() if points}


def _candidate_points(run: RunFiles) -> dict[str, list[tuple[float, float]]]:
    points = [
        (one.predicted_ms, one.ms(run.statistic))
        for one in run.measured.values()
        if one.predicted_ms is not None
    ]
    return {"candidates of the search": points} if points else {}


def _quality_table(report: Mapping[str, Any]) -> Table:
    """The predictor in use beside what it has to beat."""
    used = next(
        entry
        for entry in report["predictors"]
        if (entry["granularity"], entry["statistic"])
        == (report["granularity"], report["statistic"])
    )
    qualities = {
        "sum of rows, calibrated": used["calibrated"],
        "sum of rows": used["raw"],
        **({"single convolutions, calibrated": report["singles"]} if "singles" in report else {}),
        "multiply-adds, calibrated": report["macs"],
        "the best constant": report["constant"],
        "a second measurement": report["repeat"],
    }
    rows = [
        (
            name,
            percent(one["mean"]),
            percent(one["p90"]),
            percent(one["within_10"]),
            "-" if one["tau"] is None else f"{one['tau']:.3f}",
        )
        for name, one in qualities.items()
    ]
    return Table(
        ("predictor", "mean error %", "90 % below %", "within 10 % of it, %", "Kendall's tau"),
        rows,
        f"{report['held_out_nets']} held-out networks of {report['fastest_ms']:.2f} to "
        f"{report['slowest_ms']:.2f} ms, drawn by seed {report['seed']} before the first row; "
        f"{report['calibration_nets']} others for the calibration.",
    )


def _goals(report: Mapping[str, Any]) -> list[str]:
    return [
        f"{'Reached' if reached else 'Missed'}: {goal}."
        for goal, reached in report.get("goals", {}).items()
    ]


def stages_section(run: RunFiles) -> Section:
    """Minutes of every stage."""
    title = "Minutes"
    if not run.stages:
        return Section(title, ["Nothing yet: no stage has run."])
    minutes = {name: float(record["seconds"]) / 60 for name, record in run.stages.items()}
    rows = [
        (name, f"{minutes[name]:.2f}", str(record["begun"]), str(record["finished"] or "not yet"))
        for name, record in run.stages.items()
    ]
    rows.append(("in all", f"{math.fsum(minutes.values()):.2f}", "", ""))
    svg = plots.bars({name: {"minutes": value} for name, value in minutes.items()}, "minutes")
    return Section(title, [], [Table(("stage", "minutes", "begun", "finished"), rows), Figure(svg)])


def device_section(run: RunFiles) -> Section:
    """What the latencies are of."""
    title = "Measured on"
    file = run.table
    if file is None:
        return absent(title, "measure")
    device, conditions = file.device, file.conditions
    versions = ", ".join(f"{name} {version}" for name, version in sorted(device.runtimes.items()))
    threads = conditions.get("threads")
    facts = {
        "device": f"{device.name} ({device.id}), {device.arch}",
        "system": device.os,
        "driver": device.driver or "-",
        "engine": f"{file.backend}, {file.precision}, batch {file.batch}",
        "size": f"{file.size} (height x width)",
        "threads": str(threads) if threads else "default",
        "last step": str(conditions.get("tail", "-")),
        "statistic": f"{file.statistic} of protocol {file.protocol.name}",
        "rows": str(len(file.rows)),
        "versions": versions or "-",
        "commit": file.commit,
        "measured": file.measured_on or "-",
    }
    return Section(title, [], [Table(("fact", "value"), list(facts.items()))])


def exports_section(run: RunFiles) -> Section:
    """Files that are handed over."""
    title = "Exported"
    if not run.exported:
        return absent(title, "export")
    rows = [(path.name, f"{path.stat().st_size:,}") for path in run.exported]
    return Section(title, [], [Table(("file", "bytes"), rows)])
