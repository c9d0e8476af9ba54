"""What the commands of a search share: their options, and what they run with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import note
from fasterseg.interrupts import deferred

if TYPE_CHECKING:
    from fasterseg.retarget.stage_context import Hooks
    from fasterseg.search.distributed import Group

ConfigArgument = Annotated[
    str | None,
    typer.Argument(help="Settings .toml of the run, or the name of a packaged one."),
]
OutputOption = Annotated[Path, typer.Option(help="Folder of everything the run leaves.")]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder of the data set, where its .toml does not name it.")
]
DatasetOption = Annotated[
    str | None, typer.Option(help="Name, or .toml of your own, instead of the settings'.")
]
ImagesOption = Annotated[
    int | None, typer.Option(min=1, help="Crops in the whole run, instead of the file's.")
]
TargetOption = Annotated[
    list[float] | None,
    typer.Option(
        "--target-latency-ms",
        metavar="MS",
        help="What a network may take on the device; again for more networks.",
    ),
]
TargetFpsOption = Annotated[
    float | None, typer.Option("--target-fps", metavar="N", help="The same as frames per second.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Seed of everything drawn.")
]
TableOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Latency table of this device, instead of measuring one."),
]
SpaceOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Search space (TOML: layers, ops, widths, ...)."),
]
SupernetOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Output folder of another run, whose supernet is taken: no training."
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="What trains and scores: auto, cpu or cuda."),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="CPU threads that train and score.")
]
MinutesOption = Annotated[
    float | None, typer.Option(min=0.0, metavar="M", help="Stop, saved, after this time.")
]
PoliteOption = Annotated[
    bool, typer.Option("--polite", help="Train on cores that others leave idle only.")
]
RedoOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Do this stage, and what follows from it, anew."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what each stage will take, from a few of its steps."),
]


@contextlib.contextmanager
def prepared(
    device: str, threads: int | None, minutes: float | None, polite: bool
) -> Iterator[tuple[str, Group, Hooks]]:
    """The device, the processes and the hooks of a run; signals end it between two steps."""
    from fasterseg.cli.ops import Reporter
    from fasterseg.cli.training import (
        Stop,
        publish,
        resolve_device,
        show_progress,
        silent,
        teacher_network,
    )
    from fasterseg.retarget.stage_context import Hooks
    from fasterseg.search.distributed import joined
    from fasterseg.search.threads import follow_idle_cores, use_threads

    if threads is not None:
        use_threads(threads)
    where = resolve_device(device)
    stop = Stop(minutes)
    with deferred(stop.ask), joined(where) as group:
        hooks = Hooks(
            note=note if group.leads else silent,
            warn=_warn if group.leads else silent,
            stop=stop,
            before_step=follow_idle_cores() if polite else lambda: None,
            show=show_progress,
            measured=Reporter("measurement"),
            publish=publish,
            teacher=teacher_network,
        )
        yield where, group, hooks


def _warn(message: str) -> None:
    note(message, "warning")
