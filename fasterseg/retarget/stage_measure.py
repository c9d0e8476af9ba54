"""The stage `measure`: a latency table of this device that prices every network of the space."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import Placed, operators_of
from fasterseg.bench.begin import Request, begin, check_continues
from fasterseg.bench.calibrate import judge, measure_nets
from fasterseg.bench.draw import redraw
from fasterseg.bench.nominal import DEVICE, nominal_table
from fasterseg.bench.ops import DEVICE_ROW_S, OnProgress, Progress, estimate_s, measure_rows
from fasterseg.bench.quiet import Quiet, quiet_for
from fasterseg.bench.tables import TableFile
from fasterseg.bench.whole import deployed
from fasterseg.cache import write_atomic
from fasterseg.cores import usable_cores
from fasterseg.errors import (
    ConfigError,
    MissingLatencyError,
    PerformanceError,
    UsageError,
)
from fasterseg.retarget.stage_context import TABLE, Run, Stage, digest_of
from fasterseg.runtime.model import resolve_model

_NET_S: Final = 1.2
"""Seconds that one measurement of one whole network takes, opening included; a rough guide."""


def request_of(run: Run) -> Request:
    """The table that a run asks for.

    Raises:
        UsageError: no such engine, precision or statistic, or no such device here.
    """
    measure = run.settings.measure
    return Request(
        size=run.size,
        backend=measure.engine,
        precision=measure.precision,
        device=measure.device,
        threads=measure.threads,
        statistic=measure.statistic,
        seed=measure.seed,
        path=run.path(TABLE),
    ).resolved()


def load_table(run: Run) -> TableFile:
    """The table of a run, complete and of this device.

    Raises:
        UsageError: it is of another device, precision or size.
        MissingLatencyError: a network of the space could hold an operator without a row.
    """
    file = TableFile.load(run.path(TABLE))
    check_table(run, file)
    return file


def check_table(run: Run, file: TableFile) -> None:
    """Refuse a table that was measured elsewhere or otherwise, or that lacks rows.

    Raises:
        UsageError: device, engine, precision, size or statistic are not those of the run.
        MissingLatencyError: rows are missing; the message names them and the command.
    """
    settings = run.settings.measure
    if settings.clock == "nominal":
        file.table().check(DEVICE.id, size=run.size)
    else:
        request = request_of(run)
        check_continues(file, request.detect(), request)
        if file.statistic != settings.statistic:
            raise UsageError(
                f"{file.path} prices by {file.statistic}, the run by {settings.statistic}; set "
                f'statistic = "{file.statistic}" under [measure]'
            )
    check_rows(run, file)


def given_models(run: Run) -> list[Genotype]:
    """Architectures that the run compares with, or takes its target from."""
    names = list(run.settings.train.compare)
    if run.settings.target_share is not None:
        names.append(run.settings.target_model)
    classes = len(run.spec.labels)
    return [resolve_model(name).genotype.with_classes(classes) for name in dict.fromkeys(names)]


def wanted(run: Run) -> list[Placed]:
    """Every operator that must have a price."""
    plans = [plan(genotype, run.size) for genotype in given_models(run)]
    found = {placed.spec.key(): placed for placed in operators_of(plans)}
    return list({**found, **{p.spec.key(): p for p in run.space.operators(run.size)}}.values())


def check_rows(run: Run, file: TableFile) -> None:
    """Every row that a network of the space may ask for, before anything is trained.

    Raises:
        MissingLatencyError: some are missing.
    """
    missing = file.missing([placed.spec for placed in wanted(run)])
    if missing:
        keys = ", ".join(spec.key() for spec in missing[:3]) + (", ..." if missing[3:] else "")
        raise MissingLatencyError(
            f"{file.path} lacks {len(missing)} operators that networks of the space can hold "
            f"({keys}). Measure a table of this space on this device: leave out --table, or "
            f"fasterseg-bench ops --size {run.size} --space FILE --classes {run.space.num_classes}"
        )


@dataclass(frozen=True, slots=True)
class MeasureEstimate:
    """What measuring will take.

    Attributes:
        keys: operators of the space.
        todo: those without a row.
        seconds: for them and the networks of the calibration; rough.
    """

    keys: int
    todo: int
    seconds: float


def estimate(run: Run) -> MeasureEstimate:
    """What is left to measure, and for how long; measures nothing.

    Raises:
        UsageError: see `request_of`.
    """
    from fasterseg.bench.draw import CALIBRATION, HELD_OUT
    from fasterseg.bench.timing import ROW

    keys = wanted(run)
    given = run.table or (run.path(TABLE) if run.path(TABLE).exists() else None)
    rows = TableFile.load(given).rows if given else {}
    todo = [placed for placed in keys if placed.spec.key() not in rows]
    if run.settings.measure.clock == "nominal":
        return MeasureEstimate(len(keys), len(todo), 0.0)
    if run.settings.measure.device == "cuda":
        rows_s = DEVICE_ROW_S * len(todo)
    else:
        rows_s = estimate_s(todo, ROW, run.settings.measure.threads or usable_cores())
    nets = 2 * (CALIBRATION + HELD_OUT) if todo else 0
    return MeasureEstimate(len(keys), len(todo), rows_s + nets * _NET_S)


def _settings(run: Run) -> dict[str, Any]:
    return {
        "size": str(run.size),
        "measure": asdict(run.settings.measure),
        "space": asdict(run.space),
        "models": [genotype.digest() for genotype in given_models(run)],
    }


def _sources(run: Run) -> dict[str, str]:
    return {"--table": digest_of(run.table) if run.table else ""}


def _work(run: Run) -> bool:
    if run.table is not None:
        _take(run, run.table)
    elif run.settings.measure.clock == "nominal":
        _nominal(run)
    else:
        _refuse_company(run)
        _measure(run)
    run.group.share(None)
    return True


def _take(run: Run, given: Path) -> None:
    """A table that is there: checked, then kept with the run."""
    check_table(run, TableFile.load(given))
    if run.group.leads:
        try:
            content = given.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {given}: {error.strerror or error}") from error
        write_atomic(run.path(TABLE), content)


def _nominal(run: Run) -> None:
    if run.group.leads:
        models = given_models(run)
        nominal_table(run.space, run.size, run.path(TABLE), also=models).save()


def _refuse_company(run: Run) -> None:
    if run.group.world > 1:
        raise UsageError(
            "a table is measured by one process with nothing else running. Measure first, without "
            "torchrun: fasterseg-search run CONFIG --output DIR --stages measure"
        )


def _measure(run: Run) -> None:
    """Rows, then whole networks, then the fit."""
    file = _begun(run)
    quiet = quiet_for(file)
    _measure_rows(run, file, quiet)
    _measure_nets(run, file, quiet)
    assert file.space is not None
    assert file.draw is not None
    report = judge(file, redraw(file.space, file.size, file.draw, str(file.path)))
    file.save()
    run.tell(
        f"table: {len(file.rows)} rows; whole networks are predicted within "
        f"{report['error']:.1%} on average"
    )
    if report["refusal"] and not run.force:
        raise PerformanceError(
            f"{report['refusal']}; the fit is not kept. Measure on an idle machine: --redo "
            "measure. Or search with plain sums, whose winners are measured in any case: --force"
        )


def _begun(run: Run) -> TableFile:
    request = request_of(run)
    device = request.detect()
    path = request.path_on(device)
    if not path.exists():
        file = begin(request, device, run.space)
        file.save()
        return file
    file = TableFile.load(path)
    check_continues(file, device, request)
    return file


def _measure_rows(run: Run, file: TableFile, quiet: Quiet | None) -> None:
    from fasterseg.bench.snippets import snippet_opener

    conditions = file.conditions
    opener = snippet_opener(
        file.backend, conditions["device"], conditions["threads"], file.precision
    )
    measure_rows(file, wanted(run), opener, _watch(run), quiet=quiet)


def _watch(run: Run) -> OnProgress:
    """Tells how measuring gets on, and ends it between two rows where the run is to stop."""

    def told(progress: Progress) -> None:
        run.hooks.measured(progress)
        run.check()

    return told


def _measure_nets(run: Run, file: TableFile, quiet: Quiet | None) -> None:
    assert file.space is not None
    assert file.draw is not None
    drawn = redraw(file.space, file.size, file.draw, str(file.path))
    opener, frames = deployed(file)
    measure_nets(file, drawn, opener, frames, _watch(run), quiet=quiet)


MEASURE: Final = Stage(_settings, _sources, _work, (TABLE,))
