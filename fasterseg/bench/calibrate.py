"""Do sums of rows predict whole networks? Measure drawn networks, fit, and judge on others.

Three things stand beside every error, because without them it says little: the best constant
(how much the networks differ at all), a second measurement of the same networks (what nobody
can beat), and multiply-adds (what needs no table).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.latency import Calibration
from fasterseg.arch.operators import OpSpec, macs
from fasterseg.arch.plan import plan
from fasterseg.bench.doubles import as_singles
from fasterseg.bench.draw import Draw
from fasterseg.bench.fit import (
    Priced,
    best_constant,
    fit,
    left_out_error,
    predict,
    quality,
)
from fasterseg.bench.ops import Clocks, OnProgress, Progress, begin_run
from fasterseg.bench.quiet import Quiet
from fasterseg.bench.records import current_commit, now
from fasterseg.bench.tables import GRANULARITIES, Granularity, Statistic, TableFile
from fasterseg.bench.timing import TimingProtocol
from fasterseg.bench.whole import GROUP, OpenNet, protocol_for, time_together
from fasterseg.errors import MissingLatencyError, UnknownNameError
from fasterseg.registry import unknown

Price = Callable[[OpSpec], float]
"""Operator -> what it costs, in any unit."""

PASSES: Final = 2
"""Independent measurements of each network: one to judge by, one to know how well that repeats."""

LARGEST_ERROR: Final = 0.10
"""A fit whose mean error on held-out networks is above this is not kept."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """A network whose turn comes in a pass."""

    genotype: Genotype
    digest: str


def measure_nets(
    file: TableFile,
    drawn: Draw,
    open_net: OpenNet,
    frames: NDArray[np.uint8],
    on_progress: OnProgress,
    *,
    protocol: TimingProtocol | None = None,
    limit_s: float | None = None,
    clocks: Clocks | None = None,
    quiet: Quiet | None = None,
) -> int:
    """Measure the drawn networks, each `PASSES` times, hours or minutes apart in another order.

    Args:
        file: the table; it is saved after every few networks, and what it has is not repeated.
        drawn: the networks.
        open_net: opens one in the table's backend, as it would be deployed.
        frames: one batch, uint8, (N, H, W, 3), BGR.
        on_progress: called after every few networks.
        protocol: how much to run of each in a pass; None: see `whole.protocol_for`.
        limit_s: begin no further ones after so many seconds.
        clocks: what times are read from.
        quiet: repeats those during which the machine was disturbed; None takes them as they come.

    Returns:
        Number of measurements that are still missing.

    Raises:
        UsageError: the networks finish elsewhere than the row of the output did.
        EngineError: one cannot be opened.
    """
    clocks, wanted = clocks or Clocks(), protocol or protocol_for(file)
    groups = [group for number in range(PASSES) for group in _groups(file, drawn, number)]
    total = left = sum(map(len, groups))
    begin = clocks.wall()
    if groups:
        begin_run(file, "networks", wanted, quiet)
    for group in groups:
        nets = [visit.genotype for visit in group]
        times = time_together(
            file, nets, open_net, frames, protocol=wanted, clocks=clocks, quiet=quiet
        )
        for visit, one in zip(group, times, strict=True):
            file.nets.setdefault(visit.digest, []).append(one)
        file.save()
        left -= len(group)
        elapsed_s = (clocks.wall() - begin) / 1e9
        on_progress(Progress(total - left, left, f"{len(group)} networks", elapsed_s))
        if limit_s is not None and elapsed_s >= limit_s:
            break
    return left


def _groups(file: TableFile, drawn: Draw, number: int) -> list[list[_Visit]]:
    """What a pass still has to measure, in its own order, a few networks at a time."""
    visits = [
        _Visit(genotype, genotype.digest()) for genotype in (*drawn.calibration, *drawn.held_out)
    ]
    random.Random(f"{drawn.seed}/{number}").shuffle(visits)
    todo = [visit for visit in visits if len(file.nets.get(visit.digest, ())) <= number]
    return [todo[start : start + GROUP] for start in range(0, len(todo), GROUP)]


def judge(file: TableFile, drawn: Draw) -> dict[str, Any]:
    """Fit on the calibration networks, judge on the held-out ones; the table keeps both.

    Beside it stand predictions from multiply-adds alone, and from the rows of single convolutions
    (see `doubles`). The granularity is the one that predicts calibration networks best, each left
    out in turn; the held-out ones have no say in it.

    Args:
        file: rows and both passes of all networks; `granularity`, `calibration` and `report`
            are set. A fit above `LARGEST_ERROR` is not kept.
        drawn: the networks.

    Returns:
        The report, as plain JSON values; `refusal` says why the fit is not kept.

    Raises:
        MissingLatencyError: rows or networks are missing.
    """
    _check_complete(file, drawn)
    judged = {
        (granularity, statistic): _judge_rows(file, drawn, granularity, statistic)
        for granularity, statistic in product(GRANULARITIES, file.statistics)
    }
    best = min(GRANULARITIES, key=lambda g: judged[g, file.statistic].left_out)
    chosen = judged[best, file.statistic]
    first, second = (_measured(file, drawn.held_out, number) for number in range(PASSES))
    constant = best_constant(_means(file, drawn.calibration))
    singles = as_singles(file.times(best, file.statistic))
    report: dict[str, Any] = {
        "made": now(),
        "commit": current_commit(),
        "statistic": file.statistic,
        "granularity": best,
        "seed": drawn.seed,
        "calibration_nets": len(drawn.calibration),
        "held_out_nets": len(drawn.held_out),
        "slowest_ms": max(first),
        "fastest_ms": min(first),
        "range": round(max(first) / min(first), 3),
        "predictors": [entry.to_json() for entry in judged.values()],
        "macs": _judge_prices(file, drawn, lambda spec: macs(spec) / 1e9),
        "singles": _judge_prices(file, drawn, lambda spec: singles[spec.key()]),
        "constant": quality([constant] * len(first), first).to_json(),
        "repeat": quality(second, first).to_json(),
    }
    report["error"] = chosen.calibrated["mean"]
    report["refusal"] = _refusal(chosen)
    report["goals"] = _goals(file, report, chosen.calibrated)
    file.granularity = best
    file.calibration = None if report["refusal"] else chosen.calibration
    file.report = report
    return report


def rejudge(file: TableFile, drawn: Draw, statistic: str) -> dict[str, Any]:
    """`judge` a complete table by another statistic, which prices are from then on.

    Every statistic of every run is stored, so nothing is measured. A table whose fit is not kept
    should not be saved: it is better off with the statistic that it had.

    Raises:
        UnknownNameError: there is no such statistic.
        MissingLatencyError: rows or networks are missing.
    """
    if statistic not in file.statistics:
        raise UnknownNameError(unknown("statistic", statistic, list(file.statistics)))
    file.statistic = statistic
    return judge(file, drawn)


@dataclass(frozen=True, slots=True)
class _Judged:
    """How one way of reading the rows predicts the statistic that prices are."""

    granularity: Granularity
    statistic: Statistic
    calibration: Calibration
    left_out: float
    raw: dict[str, Any]
    calibrated: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "granularity": self.granularity,
            "statistic": self.statistic,
            "raw": self.raw,
            "calibrated": self.calibrated,
            "left_out_error": round(self.left_out, 4),
        }


def _refusal(chosen: _Judged) -> str | None:
    """Why a fit is not kept; None where it is."""
    if not chosen.calibration.scale > 0:
        return (
            f"the fit gives scale {chosen.calibration.scale:.3g}, so slower rows would make "
            "faster networks: rows and networks do not belong together"
        )
    if chosen.calibrated["mean"] > LARGEST_ERROR:
        return (
            f"the mean error on held-out networks is {chosen.calibrated['mean']:.1%}, above "
            f"{LARGEST_ERROR:.0%}"
        )
    return None


def _judge_rows(
    file: TableFile, drawn: Draw, granularity: Granularity, statistic: Statistic
) -> _Judged:
    rows = file.times(granularity, statistic)

    def priced(nets: Sequence[Genotype], measured: Sequence[float]) -> list[Priced]:
        plans = [plan(genotype, file.size) for genotype in nets]
        return [
            Priced(sum(rows[node.spec.key()] for node in p.nodes), len(p.nodes), ms)
            for p, ms in zip(plans, measured, strict=True)
        ]

    known = priced(drawn.calibration, _means(file, drawn.calibration))
    unknown = priced(drawn.held_out, _measured(file, drawn.held_out, 0))
    calibration = fit(known)
    truth = [net.measured_ms for net in unknown]
    return _Judged(
        granularity=granularity,
        statistic=statistic,
        calibration=calibration,
        left_out=left_out_error(known),
        raw=quality([net.sum_ms for net in unknown], truth).to_json(),
        calibrated=quality(predict(calibration, unknown), truth).to_json(),
    )


def _judge_prices(file: TableFile, drawn: Draw, price: Price) -> dict[str, Any]:
    """The same fit to other prices of operators than the rows, in whatever unit."""

    def priced(nets: Sequence[Genotype], measured: Sequence[float]) -> list[Priced]:
        plans = [plan(genotype, file.size) for genotype in nets]
        return [
            Priced(sum(price(node.spec) for node in p.nodes), len(p.nodes), ms)
            for p, ms in zip(plans, measured, strict=True)
        ]

    known = priced(drawn.calibration, _means(file, drawn.calibration))
    unknown = priced(drawn.held_out, _measured(file, drawn.held_out, 0))
    guessed = predict(fit(known), unknown)
    return quality(guessed, [net.measured_ms for net in unknown]).to_json()


def _measured(file: TableFile, nets: Sequence[Genotype], number: int) -> list[float]:
    """What one pass measured."""
    name = f"{file.statistic}_ms"
    return [float(file.nets[genotype.digest()][number][name]) for genotype in nets]


def _means(file: TableFile, nets: Sequence[Genotype]) -> list[float]:
    """Means over the passes."""
    passes = [_measured(file, nets, number) for number in range(PASSES)]
    return [statistics.fmean(values) for values in zip(*passes, strict=True)]


def _check_complete(file: TableFile, drawn: Draw) -> None:
    nets = (*drawn.calibration, *drawn.held_out)
    table = file.table()
    for genotype in nets:
        table.price(plan(genotype, file.size))
    unmeasured = sum(len(file.nets.get(genotype.digest(), ())) < PASSES for genotype in nets)
    if unmeasured:
        raise MissingLatencyError(
            f"{file.path}: {unmeasured} of {len(nets)} networks are not measured {PASSES} times. "
            f"Measure them on this device: fasterseg-bench calibrate --table {file.path}"
        )


def _goals(file: TableFile, report: dict[str, Any], chosen: dict[str, Any]) -> dict[str, bool]:
    """What a table that predictions may rest on has to reach, and whether it does."""
    limit = 0.08 if file.conditions.get("device") == "cpu" else 0.05
    tau, repeat = chosen["tau"], report["repeat"]["tau"]
    return {
        f"mean error <= {limit:.0%}": chosen["mean"] <= limit,
        "mean error <= 1/3 of the best constant's": chosen["mean"]
        <= report["constant"]["mean"] / 3,
        "90 % of networks within 10 %": chosen["within_10"] >= 0.9,
        "tau >= 0.9 x that of a second measurement": (tau or 0.0) >= 0.9 * (repeat or 0.0),
        "range >= 2x": report["range"] >= 2.0,
        "held-out networks >= 64": report["held_out_nets"] >= 64,
    }
