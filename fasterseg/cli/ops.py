"""`fasterseg-bench ops`: the latency table of this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    DeviceOption,
    LogFormat,
    LogFormatOption,
    PrecisionOption,
    ThreadsOption,
    note,
)
from fasterseg.errors import UsageError

if TYPE_CHECKING:
    from fasterseg.arch.space import Placed, SearchSpace
    from fasterseg.bench.begin import Request
    from fasterseg.bench.ops import Progress
    from fasterseg.bench.tables import TableFile

TABLES: Final = Path("benchmarks/tables")
DEFAULT_SIZE: Final = "512x1024"
_SECONDS_BETWEEN_NOTES: Final = 10.0

OPS_EPILOG: Final = (
    "\b\nExamples:\n"
    "  fasterseg-bench ops --size 256x512 --dry-run\n"
    "  fasterseg-bench ops --size 512x1024 --threads 1 --statistic cpu_min\n"
    "  fasterseg-bench ops --size 512x1024 --engine openvino --precision int8 --threads 1\n"
    "  fasterseg-bench ops --size 1024x2048 --engine torch --device cuda\n"
    "  fasterseg-bench ops --table T.json --missing-only --limit-minutes 10\n"
    "  fasterseg-bench ops --model fasterseg-camvid --size 360x480 --table camvid.json\n\n"
) + EPILOG
TableOption = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help=f"The table. Default: {TABLES}/<device>/<engine>-<precision>-<HxW>.json.",
    ),
]
EngineNameOption = Annotated[
    str, typer.Option("--engine", metavar="NAME", help="The backend that will deploy.")
]
TableSizeOption = Annotated[
    str, typer.Option("--size", metavar="HxW", help="Size of the networks' frames, height first.")
]
LimitMinutesOption = Annotated[
    float | None,
    typer.Option(
        "--limit-minutes",
        min=0.0,
        metavar="M",
        help="Begin nothing new after so many minutes; the same command goes on where it ended.",
    ),
]


def ops(
    table: TableOption = None,
    size: TableSizeOption = DEFAULT_SIZE,
    engine: EngineNameOption = "onnxruntime",
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tail: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="Upsampling and argmax of the last row: graph, native (our kernel), or auto: as "
            "the table that is there, a new one as engines do.",
        ),
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Frames per call.")] = 1,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Search space (TOML: layers, ops, widths, ...). Default: paper's."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Classes of the head. Default: 19.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Only the operators of this model, in place of a space; again for more.",
        ),
    ] = None,
    statistic: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What prices are: p50 or min of wall time (on a GPU: by its own clock), cpu_p50 "
            "or cpu_min of the CPU time of the process (steady on a shared machine with --threads "
            "1). All are stored.",
        ),
    ] = "p50",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the networks drawn for the calibration.")
    ] = 0,
    missing_only: Annotated[
        bool,
        typer.Option(
            "--missing-only", help="Add what is missing to --table, with the table's settings."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Measure anew what is there.")
    ] = False,
    limit_minutes: LimitMinutesOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured, and for how long.")
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Measure the latency table of this device: every operator of a search space, one by one.

    Operators run as in a network, between others whose time is taken off, through the sessions
    that deploy. Every row is stored at once: a run that is killed is continued by the same command.
    """
    from fasterseg.bench.begin import Request, space_from
    from fasterseg.types import Size

    request = Request(
        size=Size.parse(size),
        backend=engine,
        precision=precision,
        device=device,
        threads=threads,
        batch=batch,
        statistic=statistic,
        seed=seed,
        path=table,
        root=TABLES,
        tail=tail,
    )
    if missing_only and overwrite:
        raise UsageError("--missing-only keeps what is there and --overwrite does not; give one")
    chosen, models = space_from(space, classes), model or []
    if missing_only:
        file = known_table(request)
    else:
        file = _begun(request, chosen, by_model=bool(models), overwrite=overwrite)
    _measure(file, _wanted(file, chosen, models), limit_minutes, dry_run)


def known_table(request: Request) -> TableFile:
    """A table that is there and belongs to this machine."""
    from fasterseg.bench.begin import check_continues, request_of
    from fasterseg.bench.tables import TableFile

    path = request.path
    if path is None:
        resolved = request.resolved()
        path = resolved.path_on(resolved.detect())
    file = TableFile.load(path)
    own = request_of(file).resolved()
    check_continues(file, own.detect(), own)
    return file


def _begun(
    request: Request, space: SearchSpace | None, *, by_model: bool, overwrite: bool
) -> TableFile:
    """The table that is asked for: as far as it was measured, or a new one."""
    from fasterseg.arch.space import SearchSpace
    from fasterseg.bench.begin import begin, check_continues
    from fasterseg.bench.tables import TableFile

    request = request.resolved()
    device = request.detect()
    path = request.path_on(device)
    if overwrite or not path.exists():
        return begin(request, device, None if by_model else space or SearchSpace())
    file = TableFile.load(path)
    check_continues(file, device, request)
    if file.statistic != request.statistic:
        raise UsageError(
            f"{path} prices by {file.statistic}, not by {request.statistic}; every statistic is "
            "stored, so leave --statistic as it was, or measure anew: --overwrite"
        )
    return file


def _wanted(file: TableFile, space: SearchSpace | None, models: list[str]) -> list[Placed]:
    from fasterseg.bench.begin import wanted_by
    from fasterseg.runtime.model import resolve_model

    return wanted_by(file, space, [resolve_model(name).genotype for name in models])


def _measure(
    file: TableFile, wanted: list[Placed], limit_minutes: float | None, dry_run: bool
) -> None:
    from fasterseg.bench.ops import estimate_for, measure_rows
    from fasterseg.bench.quiet import quiet_for
    from fasterseg.bench.snippets import snippet_opener

    todo = [placed for placed in wanted if placed.spec.key() not in file.rows]
    conditions = file.conditions
    estimated_s = estimate_for(file, todo)
    note(
        f"{file.path}: {len(todo)} of {len(wanted)} operators to measure at {file.size} (HxW), "
        f"{file.backend} {file.precision} on {file.device.name}, protocol {file.protocol.name}; "
        f"roughly {duration_text(estimated_s)}"
    )
    if dry_run:
        return
    if todo:
        warn_busy()
        # Before the first row: nothing measured may have a say in what is drawn.
        file.save()
    opener = snippet_opener(
        file.backend, conditions["device"], conditions["threads"], file.precision
    )
    left = measure_rows(
        file,
        wanted,
        opener,
        Reporter("row"),
        limit_s=seconds_of(limit_minutes),
        quiet=quiet_for(file),
    )
    _summary(file, len(wanted), left)


def _summary(file: TableFile, wanted: int, left: int) -> None:
    from fasterseg.bench.scopes import UNSTABLE_COV

    print(f"{file.path}: {wanted - left} of {wanted} operators measured")
    unstable = sum(row["cov"] > UNSTABLE_COV for row in file.rows.values())
    if unstable:
        note(
            f"{unstable} of {len(file.rows)} rows vary by more than {UNSTABLE_COV:.0%} (standard "
            "deviation over mean); medians stand that, but an idle machine is better",
            "warning",
        )
    if left:
        print(f"{left} are left; the same command goes on")
    elif file.draw is not None and file.report is None:
        print(f"next: fasterseg-bench calibrate --table {file.path}")


class Reporter:
    """Notes on stderr while something is measured: now and then, with what is left."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell, where it is time to."""
        is_last = progress.left == 0
        if progress.elapsed_s - self._told_s < _SECONDS_BETWEEN_NOTES and not is_last:
            return
        self._told_s = progress.elapsed_s
        total = progress.done + progress.left
        note(
            f"[{progress.done}/{total}] {progress.step}, "
            + (
                "done in " + duration_text(progress.elapsed_s)
                if is_last
                else f"{duration_text(progress.left_s)} to go"
            ),
            done=progress.done,
            total=total,
            eta_s=round(progress.left_s, 1),
        )


def warn_busy() -> None:
    """Say so when other programs are running: what is measured now would be of all of them."""
    from fasterseg.bench.device import load_average
    from fasterseg.bench.scopes import busy
    from fasterseg.cores import usable_cores

    for warning in busy(load_average(), usable_cores()):
        note(warning, "warning")


def seconds_of(minutes: float | None) -> float | None:
    """A limit in seconds; no limit stays none."""
    return None if minutes is None else 60 * minutes


def duration_text(seconds: float) -> str:
    """Seconds for people: `42 s`, `7 min`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole / 60:.0f} min"
