"""`fasterseg-search pretrain`, `cosearch`: the paper's search, step by step."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasterseg.cli.options import DebugOption, LogFormat, LogFormatOption, note
from fasterseg.cli.search_options import (
    DataOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    ImagesOption,
    MinutesOption,
    PoliteOption,
    SeedOption,
    ThreadsOption,
    prepared,
)
from fasterseg.errors import UsageError

if TYPE_CHECKING:
    from fasterseg.arch.latency import LatencyTable
    from fasterseg.retarget.stage_context import Hooks
    from fasterseg.retarget.stage_mixture import MixtureRun
    from fasterseg.search.cosettings import MixtureSettings
    from fasterseg.search.distributed import Group

FolderOption = Annotated[Path, typer.Option(help="Folder for checkpoints, log and results.")]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Epochs to divide them into.")
]


def pretrain(
    config: Annotated[str, typer.Argument(help="Settings .toml, or paper/pretrain.")],
    output: FolderOption,
    data: DataOption = None,
    dataset: DatasetOption = None,
    images: ImagesOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: MinutesOption = None,
    polite: PoliteOption = False,
    dry_run: DryRunOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Train the paper's supernet at equal logits, for a co-search to start from.

    \b
    Example:
      fasterseg-search pretrain paper/pretrain --data Cityscapes/ --output pretrained/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    with prepared(device, threads, minutes, polite) as (where, group, hooks):
        settings = _settings(config, "pretrain", images=images, epochs=epochs, seed=seed)
        mixture = _mixture(settings, dataset, data, output, where, group, hooks)
        if dry_run:
            _dry_run(mixture)
        elif _train(mixture, output, hooks):
            note(f"next: fasterseg-search cosearch paper/search --init {output} --table FILE")


def cosearch(
    config: Annotated[str, typer.Argument(help="Settings .toml, or paper/search.")],
    output: FolderOption,
    init: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a pretraining; without it weights are random."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Latency table of this device, for the target."),
    ] = None,
    target_latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", min=0.0, help="Instead of the file's; 0 leaves latency out."),
    ] = None,
    data: DataOption = None,
    dataset: DatasetOption = None,
    images: ImagesOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    minutes: MinutesOption = None,
    polite: PoliteOption = False,
    dry_run: DryRunOption = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Search teacher and student together, by gradient: DIR/genotype.json and DIR/teacher.json.

    \b
    Examples:
      fasterseg-search cosearch paper/search --init pretrained/ --table T.json --output found/
      fasterseg-search train paper/teacher --arch found/teacher.json --output teacher/
      fasterseg-search train paper/student --arch found/genotype.json --teacher teacher/ --output s/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    with prepared(device, threads, minutes, polite) as (where, group, hooks):
        settings = _settings(config, "search", images=images, epochs=epochs, seed=seed)
        if target_latency_ms is not None:
            searched = dataclasses.replace(settings.cosearch, target_ms=target_latency_ms)
            settings = dataclasses.replace(settings, cosearch=searched)
        prices = _table(table, settings) if table else None
        mixture = _mixture(
            settings, dataset, data, output, where, group, hooks, start=init, table=prices
        )
        if init is not None:
            _check_split(init, mixture)
        if dry_run:
            _dry_run(mixture)
        elif _train(mixture, output, hooks):
            _derive(mixture, output, hooks)


def _settings(config: str, stage: str, **changes: int | None) -> MixtureSettings:
    from fasterseg.search.cosettings import load_mixture

    settings = load_mixture(config)
    if settings.stage != stage:
        raise UsageError(
            f"{config} is for stage {settings.stage}; give paper/{stage}, or settings with "
            f'stage = "{stage}"'
        )
    given = {name: value for name, value in changes.items() if value is not None}
    epochs = given.pop("epochs", settings.epochs)
    train = dataclasses.replace(settings.train, **given)  # type: ignore[arg-type]
    return dataclasses.replace(settings, train=train, epochs=min(epochs, train.steps))


def _mixture(
    settings: MixtureSettings,
    dataset: str | None,
    data: Path | None,
    output: Path,
    where: str,
    group: Group,
    hooks: Hooks,
    **options: Any,
) -> MixtureRun:
    """The training, with the data set's classes in its space."""
    from fasterseg.datasets import dataset as named
    from fasterseg.retarget.stage_mixture import MixtureRun
    from fasterseg.search.settings import for_dataset
    from fasterseg.search.split import split_train

    train = for_dataset(settings.train, dataset)
    spec = named(train.dataset)
    root = spec.folder(data)
    space = dataclasses.replace(settings.space, num_classes=len(spec.labels))
    return MixtureRun(
        dataclasses.replace(settings, train=train, space=space),
        spec,
        root,
        split_train(spec.pairs(root, "train")),
        where,
        group,
        tell=hooks.note,
        **options,
    )


def _check_split(init: Path, mixture: MixtureRun) -> None:
    """Refuse a pretraining that has seen the pictures which the search is judged by."""
    from fasterseg.retarget.stage_context import SPLIT, read_json

    if read_json(init / SPLIT) != mixture.split.to_json():
        raise UsageError(
            f"the pretraining of {init} used other pictures (see its {SPLIT}); give the same "
            "--data and --dataset, or pretrain again"
        )


def _table(path: Path, settings: MixtureSettings) -> LatencyTable:
    """The table, of this device; that of the original for the original's formulas."""
    from fasterseg.arch.latency import LatencyTable
    from fasterseg.bench.tables import TableFile
    from fasterseg.retarget.measured import check_table

    if settings.cosearch.original:
        return LatencyTable.load(path)
    file = TableFile.load(path)
    check_table(file)
    return file.table()


def _train(mixture: MixtureRun, output: Path, hooks: Hooks) -> bool:
    from fasterseg.retarget.stage_context import SPLIT, write_json
    from fasterseg.retarget.stage_mixture import watched
    from fasterseg.retarget.stage_training import proceed

    trainer = mixture.trainer(output)
    write_json(output / SPLIT, mixture.split.to_json())
    searches = mixture.settings.stage == "search"
    between = watched(mixture, trainer) if searches else lambda: None
    finished = proceed(trainer, mixture.spec, hooks, between=between)
    if finished:
        between()
    state = "finished" if finished else "stopped; the same command goes on"
    note(f"step {trainer.step} of {trainer.settings.steps}, {state}")
    return finished


def _derive(mixture: MixtureRun, output: Path, hooks: Hooks) -> None:
    from fasterseg.retarget.stage_context import GENOTYPE, TEACHER, write_json
    from fasterseg.retarget.stage_mixture import found_networks
    from fasterseg.search.corecord import did_not_move

    student, teacher, record = found_networks(mixture, output)
    if warning := did_not_move(record):
        hooks.warn(warning)
    for name, genotype in ((GENOTYPE, student), (TEACHER, teacher)):
        write_json(output / name, genotype.to_json())
        print(output / name)


def _dry_run(mixture: MixtureRun) -> None:
    from fasterseg.retarget.stage_estimate import training_line

    with tempfile.TemporaryDirectory() as folder:
        line = training_line(mixture.trainer(Path(folder)))
    settings = mixture.settings
    print(f"{settings.stage}, {settings.epochs} epochs: {line}")
    if mixture.table is not None:
        print(f"{len(settings.space.specs(mixture.table.size))} keys, all in {mixture.table.path}")
