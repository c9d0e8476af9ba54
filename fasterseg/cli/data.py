"""`fasterseg-search data`: check a data set before it is trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    EPILOG,
    DebugOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    new_app,
    note,
    write_json,
)

if TYPE_CHECKING:
    from fasterseg.datasets import DataReport, DatasetSpec, Split
    from fasterseg.types import Size

data_app = new_app("Data sets.")


@data_app.command("check", epilog=EPILOG)
def check(
    dataset_: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME|FILE",
            help="bdd100k, camvid, camvid-720, cityscapes, streets, or a .toml file of your own.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Folder of the data set; default: as the .toml says."
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Splits, joined by commas; default: all with labels."),
    ] = None,
    json_: JsonOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Read every pair of a data set and report all that is wrong, at once.

    Looks for missing files, pictures and labels of different sizes, ids or colours that are no
    class, classes without a pixel, and pictures that are in two splits.

    \b
    Examples:
      fasterseg-search data check --dataset camvid --data CamVid/
      fasterseg-search data check --dataset my.toml --json report.json
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg import datasets

    spec = datasets.dataset(dataset_)
    root = spec.folder(data)
    report = datasets.check_dataset(spec, root, _splits(splits), _progress)
    if json_ is not None:
        write_json(json_, json.dumps(report.to_json(spec, root), indent=2))
    if json_ != "-":
        _print_table(spec, report)
    for line in report.notes:
        note(f"note: {line}")
    _conclude(spec, root, report)


def _splits(text: str | None) -> list[Split]:
    """Names joined by commas; none for nothing."""
    from fasterseg.datasets import SPLITS
    from fasterseg.errors import UnknownNameError
    from fasterseg.registry import unknown

    names = [] if text is None else [name.strip() for name in text.split(",")]
    known = {str(split): split for split in SPLITS}
    for name in names:
        if name not in known:
            raise UnknownNameError(unknown("split", name, known))
    return [known[name] for name in names]


def _progress(done: int, total: int) -> None:
    if done % 200 == 0 and done < total:
        note(f"{done}/{total} pairs")


def _print_table(spec: DatasetSpec, report: DataReport) -> None:
    """One column a split: pairs, usual size, percent of the labelled pixels per class."""
    from fasterseg.datasets import shares

    if not report.splits:
        return
    columns = [shares(split) for split in report.splits]
    rows: list[tuple[str, list[str]]] = [
        ("", [split.split for split in report.splits]),
        ("pairs", [str(split.pairs) for split in report.splits]),
        ("pictures, HxW", [_usual(split.sizes) for split in report.splits]),
    ]
    for place, name in enumerate(spec.labels.classes):
        rows.append((name, [_percent(column[place]) for column in columns]))
    ignored = [
        100 * split.ignored / max(1, split.ignored + int(split.pixels.sum()))
        for split in report.splits
    ]
    rows.append(("(ignored)", [_percent(value) for value in ignored]))
    width = max(len(name) for name, _ in rows)
    wide = max(len(cell) for _, cells in rows for cell in cells)
    print(f"{spec.name}: percent of the labelled pixels per class; ignored: of all pixels")
    for name, cells in rows:
        print("  ".join([f"{name:<{width}}", *(f"{cell:>{wide}}" for cell in cells)]))


def _usual(sizes: Mapping[Size, int]) -> str:
    """The most frequent size, and how many others there are."""
    usual = str(next(iter(sizes), "-"))
    return f"{usual} +{len(sizes) - 1}" if len(sizes) > 1 else usual


def _percent(value: float) -> str:
    return f"{value:.2f}" if value else "-"


def _conclude(spec: DatasetSpec, root: Path, report: DataReport) -> None:
    """List the problems.

    Raises:
        SourceError: there are any.
    """
    from fasterseg.datasets import PROBLEMS_SHOWN
    from fasterseg.errors import SourceError

    where = spec.name if spec.synthetic else f"{spec.name} in {root}"
    for line in report.problems[:PROBLEMS_SHOWN]:
        note(line)
    count = len(report.problems)
    if not count:
        note(f"{where} is sound")
        return
    rest = f"; the first {PROBLEMS_SHOWN} are above, all are in --json FILE"
    raise SourceError(
        f"{count} problem{'s' if count > 1 else ''} in {where}"
        f"{rest if count > PROBLEMS_SHOWN else ''}. Mend them before training"
    )
