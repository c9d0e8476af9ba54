"""`fasterseg-search run` and its stages: a network for the device at hand, by one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
)
from fasterseg.cli.search_options import (
    ConfigArgument,
    DataOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    MinutesOption,
    OutputOption,
    PoliteOption,
    RedoOption,
    SeedOption,
    SpaceOption,
    SupernetOption,
    TableOption,
    TargetFpsOption,
    TargetOption,
    ThreadsOption,
    prepared,
)
from fasterseg.errors import UsageError

if TYPE_CHECKING:
    from fasterseg.retarget.settings import RetargetSettings
    from fasterseg.retarget.stage_context import Hooks, Run
    from fasterseg.search.distributed import Group


def run(
    output: OutputOption,
    config: ConfigArgument = None,
    data: DataOption = None,
    dataset: DatasetOption = None,
    target_latency_ms: TargetOption = None,
    target_fps: TargetFpsOption = None,
    seed: SeedOption = None,
    table: TableOption = None,
    space: SpaceOption = None,
    supernet: SupernetOption = None,
    stages: Annotated[
        str, typer.Option(metavar="A,B", help="Only these stages. Default: all.")
    ] = "",
    skip: Annotated[str, typer.Option(metavar="A,B", help="All stages but these.")] = "",
    redo: RedoOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Go on with a table that predicts badly, export what chance decided."
        ),
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Everything in miniature, by both methods, on rendered streets."
        ),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: MinutesOption = None,
    polite: PoliteOption = False,
    dry_run: DryRunOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Find the network for this device: measure, search, train, export, report.

    Stages of method evolve: measure, supernet, search, train, export, report; of method fasterseg:
    measure, pretrain, cosearch, derive, train, report, export. What is done is not done again, and
    what was killed goes on: give the same command. DIR/report.html tells the whole story,
    DIR/train/searched is the model (--model), DIR/export holds its ONNX files.

    \b
    Examples:
      fasterseg-search run camvid-cpu --data CamVid/ --target-latency-ms 30 --output run/
      fasterseg-search run camvid-cpu --data CamVid/ --output run/ --dry-run
      fasterseg-search run mine.toml --target-fps 30 --table T.json --skip train --output run/
      fasterseg-search run camvid-cpu --supernet run/ --target-latency-ms 20 --output faster/
      fasterseg-search run --smoke --output smoke/
      torchrun --nproc-per-node 4 -m fasterseg search run cityscapes-gpu --data CS/ --output run/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    changes = _changes(target_latency_ms, target_fps, seed, dataset)
    with prepared(device, threads, minutes, polite) as (where, group, hooks):
        if smoke:
            _refuse_with_smoke(config, data, table, space)
            _smoke(output, where, group, hooks, seed)
            return
        if config is None:
            raise UsageError(
                "which run? Give settings .toml or a packaged one (camvid-cpu, cityscapes-gpu), "
                "or --smoke"
            )
        from fasterseg.retarget.settings import load_run

        this = _run(
            load_run(config, changes, space), output, data, where, group, hooks,
            table=table, weights=supernet, force=force,
        )  # fmt: skip
        if dry_run:
            _dry_run(this, _names(stages), _names(skip))
            return
        _do(this, _names(stages), _names(skip), redo or [])


def supernet(
    config: Annotated[str, typer.Argument(help="Settings .toml, or the name of a packaged run.")],
    output: OutputOption,
    data: DataOption = None,
    dataset: DatasetOption = None,
    seed: SeedOption = None,
    space: SpaceOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: MinutesOption = None,
    polite: PoliteOption = False,
    redo: RedoOption = None,
    dry_run: DryRunOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Train the supernet of a run alone: it needs no latency table and serves any device.

    \b
    Examples:
      fasterseg-search supernet camvid-cpu --data CamVid/ --output run/ --minutes 60
      fasterseg-search run camvid-cpu --data CamVid/ --supernet run/ --output other/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    changes = _changes(None, None, seed, dataset)
    with prepared(device, threads, minutes, polite) as (where, group, hooks):
        from fasterseg.retarget.settings import load_run

        this = _run(load_run(config, changes, space), output, data, where, group, hooks)
        only = ["supernet"] if this.settings.method == "evolve" else ["pretrain"]
        if dry_run:
            _dry_run(this, only, [])
        else:
            _do(this, only, [], redo or [])


def search(
    config: Annotated[str, typer.Argument(help="Settings .toml, or the name of a packaged run.")],
    output: OutputOption,
    data: DataOption = None,
    dataset: DatasetOption = None,
    target_latency_ms: TargetOption = None,
    target_fps: TargetFpsOption = None,
    seed: SeedOption = None,
    table: TableOption = None,
    space: SpaceOption = None,
    supernet: SupernetOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: MinutesOption = None,
    polite: PoliteOption = False,
    redo: RedoOption = None,
    dry_run: DryRunOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Find the architecture of a run, with whatever that needs; nothing is trained by itself.

    \b
    Examples:
      fasterseg-search search camvid-cpu --data CamVid/ --target-latency-ms 30 --output run/
      fasterseg-search search camvid-cpu --supernet run/ --table T.json --target-fps 40 --output b/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    changes = _changes(target_latency_ms, target_fps, seed, dataset)
    with prepared(device, threads, minutes, polite) as (where, group, hooks):
        from fasterseg.retarget.settings import load_run

        this = _run(
            load_run(config, changes, space), output, data, where, group, hooks,
            table=table, weights=supernet,
        )  # fmt: skip
        trained = ["train", "export", "report"]
        if dry_run:
            _dry_run(this, [], trained)
        else:
            _do(this, [], trained, redo or [])


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Write DIR/report.html anew, from what the run has left so far.

    \b
    Example:
      fasterseg-search report run/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.registry import resolve
    from fasterseg.retarget.stage_export import PAGES

    print(resolve(PAGES, "report", "page")(folder))


def _changes(
    targets_ms: list[float] | None, target_fps: float | None, seed: int | None, dataset: str | None
) -> dict[str, Any]:
    """What the command line says instead of the file."""
    given = {
        "targets_ms": targets_ms or None,
        "target_fps": target_fps,
        "seed": seed,
        "dataset": dataset,
    }
    return {name: value for name, value in given.items() if value is not None}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _run(
    settings: RetargetSettings,
    output: Path,
    data: Path | None,
    where: str,
    group: Group,
    hooks: Hooks,
    **options: Any,
) -> Run:
    from fasterseg.datasets import dataset as named
    from fasterseg.retarget.stage_context import Run

    spec = named(settings.dataset)
    return Run(output, settings, spec, spec.folder(data), where, group, hooks, **options)


def _do(this: Run, only: list[str], skip: list[str], redo: list[str]) -> None:
    from fasterseg.registry import resolve
    from fasterseg.retarget.stage_export import PAGES
    from fasterseg.retarget.stages import chosen_stages, run_stages

    names = chosen_stages(this.settings.method, only, skip)
    if "report" in names:
        # What it needs is told before hours of training, not after.
        resolve(PAGES, "report", "page")
    if run_stages(this, names, redo) and this.group.leads:
        for path in results_of(this.folder):
            print(path)


def results_of(folder: Path) -> list[Path]:
    """What a run has to hand over so far."""
    patterns = ("genotype*.json", "train/searched*/model.json", "export/*.onnx", "report.html")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _dry_run(this: Run, only: list[str], skip: list[str]) -> None:
    from fasterseg.retarget.stage_estimate import estimate_stages
    from fasterseg.retarget.stages import chosen_stages

    lines = estimate_stages(this, chosen_stages(this.settings.method, only, skip))
    if this.group.leads:
        print("\n".join(lines))


def _refuse_with_smoke(*others: object) -> None:
    if any(other is not None for other in others):
        raise UsageError("--smoke brings its own settings and data; give it --output alone")


def _smoke(output: Path, where: str, group: Group, hooks: Hooks, seed: int | None) -> None:
    from fasterseg.retarget.smoke import smoke

    if smoke(output, where, group, hooks, seed) and group.leads:
        for path in results_of(output):
            print(path)
