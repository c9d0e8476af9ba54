"""What a run of `gpu.py` found: the table that is printed last, and its records."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gpu_run import FILE, State

from fasterseg.bench.records import BenchRecord
from fasterseg.bench.tables import TableFile
from fasterseg.cache import write_atomic
from fasterseg.errors import OutputError, OutputExistsError, UsageError
from fasterseg.runtime.model import resolve_model

AIMS_FPS: Final[Mapping[str, float]] = {"1024x2048": 2000, "512x1024": 4000, "1024x2048-b8": 3500}
"""Case -> frames a second by the device's clock that are aimed at on one H200."""

AIM_COMPILED: Final = 3.0
AIM_COLD_S: Final = 2.0
EAGER: Final = "torch eager, as the original"
COMPILED: Final = "torch.compile max-autotune"
_SLOWEST: Final = 12


def lines(state: State) -> Iterator[str]:
    """The table, short enough for the end of a log."""
    facts = state.facts
    if facts.get("trial"):
        yield "TRIAL on a CPU: it shows that the steps run; no figure here is a measurement."
    yield f"{facts.get('device')}, {facts.get('model')}, commit {facts.get('commit')}"
    yield from _machine(state)
    for name, step in state.current.items():
        error = (step["error"] or "").splitlines()
        reason = f": {error[-1][:100]}" if error else ""
        if step["outcome"] != "done":
            yield f"  {name}: {step['outcome'].upper()}{reason}"
    yield from _parity(state.result("parity") or {})
    for name in state.current:
        if name.startswith("bench-"):
            yield from _bench(name.removeprefix("bench-"), state.result(name) or {})
    yield from _layers(state.result("layers") or {})
    yield from _rest(state)
    yield from _aims(state)


def _machine(state: State) -> Iterator[str]:
    found = state.result("environment") or {}
    gpu = found.get("gpu")
    if gpu:
        wanted = ("driver_version", "clocks.sm", "clocks.max.sm", "power.draw", "power.limit")
        yield ", ".join(f"{key} {gpu[key]}" for key in wanted if key in gpu)
    if "torch" in found:
        yield ", ".join(f"{key} {value}" for key, value in found["torch"].items())
    clocks = [step["clocks"].get("after") for step in state.current.values() if step["clocks"]]
    seen = [one["clocks.sm"] for one in clocks if one and "clocks.sm" in one]
    if seen:
        yield f"SM clocks after the steps: {', '.join(seen)}"
    limits = state.result("limits") or {}
    if "ceilings" in limits:
        yield ", ".join(f"{key} {value:.4g}" for key, value in limits["ceilings"].items())
    if "launches" in limits:
        one = limits["launches"]
        yield (
            f"{one['kernels']} empty kernels: {one['eager_us']:.2f} us each launched eagerly, "
            f"{one['graph_us']:.2f} us in a graph; a replay takes the host "
            f"{one['replay_host_us']:.1f} us"
        )


def _parity(found: Mapping[str, Any]) -> Iterator[str]:
    for name, row in (found.get("labels") or {}).items():
        if "error" in row:
            yield f"  WRONG {name}: {row['error']}"
            continue
        verdict = "right" if row["passed"] else "WRONG"
        yield (
            f"  {verdict} {name}: {100 * row['agreement']:.4f} % of labels (at least "
            f"{100 * row['threshold']:g}), differing up to a margin of {row['worst_margin']:.2g} "
            f"(allowed {row['margin_allowed']:.2g})"
        )
    scores = found.get("miou")
    if isinstance(scores, dict):
        for name, row in scores.items():
            verdict = "right" if row["passed"] else "WRONG"
            yield f"  {verdict} mIoU {name}: {row['miou']:.2f} ({row['difference']:+.3f})"
    elif scores:
        yield f"  mIoU: {scores}"


def _bench(case: str, found: Mapping[str, Any]) -> Iterator[str]:
    if not found.get("rows"):
        return
    model, batch = found["model"], found["batch"]
    floor = found["floors_us"].get(f"{model} pass stated")
    yield ""
    yield (
        f"{case}, {model}, protocol {found['protocol']['name']}, floor {floor:.1f} us layer by layer"
    )
    yield (
        f"  {'':32s} {'prec':4s} {'us p50':>8s} {'p95':>8s} {'p99':>8s} {'img/s':>7s} {'floor':>6s}"
        f" {'host ms':>8s} {'labels':>8s}  times faster than eager, compile"
    )
    for row in sorted(found["rows"], key=lambda row: float(row["device"]["p50_ms"])):
        yield _bench_row(row, batch, floor)
    peaks = {row["name"]: row["facts"].get("peak_mb") for row in found["rows"]}
    known = [f"{name} {mb:.0f}" for name, mb in peaks.items() if mb is not None]
    if known:
        yield f"  peak memory through torch, MB: {', '.join(known)}"
    for name, reason in found.get("absent", {}).items():
        yield f"  {name}: {reason[:120]}"


def _bench_row(row: Mapping[str, Any], batch: int, floor: float) -> str:
    own, host, same = row["device"], row.get("host_to_labels"), row.get("agreement")
    ratios = [
        f"{one['p50']:.2f} ({one['p10']:.2f}-{one['p90']:.2f})" if one else "-"
        for one in (row["faster"].get(EAGER), row["faster"].get(COMPILED))
    ]
    variant = row["facts"].get("variant")
    own_variant = variant and variant not in row["name"]
    name = f"{row['name']} ({variant})" if own_variant else row["name"]
    return (
        f"  {name[:32]:32s} {row['precision']:4s} {1e3 * own['p50_ms']:8.1f} "
        f"{1e3 * own['p95_ms']:8.1f} {1e3 * own['p99_ms']:8.1f} "
        f"{1e3 * batch / own['p50_ms']:7.0f} {floor / own['p50_ms'] / 10:5.0f}% "
        f"{host['p50_ms'] if host else float('nan'):8.3f} "
        f"{'-' if same is None else f'{100 * same:.3f}':>8s}  {', '.join(ratios)}"
    )


def _layers(found: Mapping[str, Any]) -> Iterator[str]:
    rows: Sequence[Mapping[str, Any]] = found.get("rows") or []
    if not rows:
        return
    floor = sum(row["floor_us"] or 0.0 for row in rows)
    yield ""
    yield (
        f"{len(rows)} launches of {found['variant']} alone: {found['sum_us']:.1f} us in all, floors "
        f"{floor:.1f} us; those with the most above their floors:"
    )

    def excess(row: Mapping[str, Any]) -> float:
        return float(row["us"]) - float(row["floor_us"] or 0.0)

    for row in sorted(rows, key=excess, reverse=True)[:_SLOWEST]:
        floor_us = row["floor_us"]
        known = "-" if floor_us is None else f"{floor_us:.2f} {row['bound']}"
        yield f"  {row['name']:28s} {row['kind']:9s} {row['us']:8.2f} us  floor {known}"


def _rest(state: State) -> Iterator[str]:
    for row in (state.result("streams") or {}).get("rows", []):
        yield (
            f"  {row['streams']:2d} streams, {row['how']}, batch {row['batch']}: "
            f"{row['frames_per_s']:.0f} frames/s, {row['latency']['p50_ms']:.2f} ms a call"
        )
    for row in (state.result("cold") or {}).get("runs", []):
        yield (
            f"  cold start, {row['cache']} cache: {row['open_to_first_labels_s']:.2f} s from opening "
            f"to the first labels, {row['process_s']:.2f} s with the process"
        )
    table = state.result("table") or {}
    if "rows" in table:
        report = table.get("report")
        verdict = "not judged yet" if not report else f"{report['held_out_nets']} nets held out"
        yield f"  latency table: {table['rows']} rows, {table['rows_left']} left, {verdict}"


def _aims(state: State) -> Iterator[str]:
    if state.facts.get("trial"):
        return
    for case, fps in AIMS_FPS.items():
        found = state.result(f"bench-{case}") or {}
        rows = [row for row in found.get("rows") or [] if row["name"].startswith("engine")]
        if not rows:
            continue
        best = min(rows, key=lambda row: float(row["device"]["p50_ms"]))
        reached = 1e3 * found["batch"] / best["device"]["p50_ms"]
        yield _aim(f"{case}: {best['name']}, images/s", reached, fps, reached >= fps)
        against = best["faster"].get(COMPILED)
        if against:
            times = against["p50"]
            what = f"{case}: times faster than torch.compile"
            yield _aim(what, times, AIM_COMPILED, times >= AIM_COMPILED)
    runs = [row for row in (state.result("cold") or {}).get("runs", []) if row["cache"] == "warm"]
    if runs:
        seconds = min(row["open_to_first_labels_s"] for row in runs)
        yield _aim("cold start, seconds", seconds, AIM_COLD_S, seconds <= AIM_COLD_S)


def _aim(what: str, value: float, aim: float, kept: bool) -> str:
    return f"{'reached' if kept else 'MISSED '}  {what}: {value:.2f} (aim {aim:g})"


# --- records ----------------------------------------------------------------------------------------


def records(state: State) -> list[BenchRecord]:
    """What our engines did as benchmark records: one for each protocol that was used."""
    device = (state.result("environment") or {}).get("device")
    benches = [
        step["result"]
        for name, step in state.current.items()
        if name.startswith("bench-") and (step["result"] or {}).get("cells")
    ]
    if device is None:
        return []
    found = []
    for name in dict.fromkeys(bench["protocol"]["name"] for bench in benches):
        alike = [bench for bench in benches if bench["protocol"]["name"] == name]
        data = {
            "schema": 1,
            "suite": "gpu",
            "created": state.facts["created"],
            "commit": state.facts["commit"],
            "model": state.facts["model"],
            "trained": resolve_model(state.facts["model"]).trained,
            "protocol": alike[0]["protocol"],
            "device": device,
            "cells": [cell for bench in alike for cell in bench["cells"]],
        }
        found.append(BenchRecord.from_json(json.dumps(data), str(state.path)))
    return found


def write_records(state: State, folder: Path) -> list[Path]:
    """Write the records beside the file of the run."""
    written = []
    for record in records(state):
        path = folder / f"record-{record.protocol.name}.json"
        write_atomic(path, (record.to_json() + "\n").encode())
        written.append(path)
    return written


def keep(folder: Path | None, benchmarks: Path) -> list[Path]:
    """Put what a run found where the repository keeps records; nothing is replaced.

    Args:
        folder: of the run.
        benchmarks: the folder with `results`, `comparisons`, `tables` and `evidence`.

    Returns:
        The files written.

    Raises:
        UsageError: no folder was named, it holds no run, or that of a trial.
        OutputExistsError: there is a latency table of this device already.
    """
    if folder is None or not (folder / FILE).is_file():
        raise UsageError(f"{folder} holds no {FILE}; name the folder of a run: gpu.py keep FOLDER")
    state = State.load(folder / FILE)
    if state.facts["trial"]:
        raise UsageError(f"{folder} is of a trial on a CPU, which measured nothing")
    device, day = state.facts["device"], state.facts["created"][:10]
    table = folder / "table.json"
    target = _place(table, benchmarks / "tables")
    written = [record.save(benchmarks / "results") for record in records(state)]
    text = (folder / FILE).read_text(encoding="utf-8")
    written.append(_new_file(benchmarks / "comparisons" / device, f"{day}-gpu", text))
    for path in sorted(folder.glob("evidence/*/*.json")):
        content = path.read_text(encoding="utf-8")
        beside = benchmarks / "evidence" / path.parent.name
        written.append(_new_file(beside, path.stem[:10], content))
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, target)
        written.append(target)
    return written


def _place(path: Path, tables: Path) -> Path | None:
    """Where a latency table goes; None for one that is not finished."""
    file = TableFile.load(path) if path.is_file() else None
    if file is None or file.report is None:
        return None
    name = f"{file.backend}-{file.precision}-{file.size}.json"
    target = tables / file.device.id / name
    if target.exists():
        raise OutputExistsError(f"{target} exists; move it away if {path} is to take its place")
    return target


def _new_file(folder: Path, stem: str, text: str) -> Path:
    """Write a file under a name that is free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = folder / f"{stem}{f'-{number}' if number > 1 else ''}.json"
            if not path.exists():
                break
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    return path
