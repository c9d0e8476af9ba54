"""`fasterseg-bench accuracy`, `submission`: scores of an engine, and files to have it scored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fasterseg.cli.options import (
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    ModelOption,
    PrecisionOption,
    SizeOption,
    TailOption,
    ThreadsOption,
    note,
    parse_size,
    write_json,
)

if TYPE_CHECKING:
    from fasterseg.bench.accuracy import Accuracy
    from fasterseg.datasets import Split
    from fasterseg.preprocess import Fit

PLOTS: Final[Mapping[str, str]] = {"confusion matrix": "fasterseg.plots:confusion_matrix"}
"""Pictures that need an extra."""

FitOption = Annotated[str, typer.Option(metavar="FIT", help="stretch or letterbox.")]
FlipOption = Annotated[
    bool,
    typer.Option(
        "--flip", help="Average logits with the mirrored frame's: two runs a frame; --engine torch."
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")
]


def accuracy(
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the data set, where FILE.toml names none."),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="camvid, cityscapes, bdd100k, or your own .toml."),
    ] = "camvid",
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val or test.")] = "val",
    engine: EngineOption = "auto",
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tail: TailOption = "auto",
    fit: FitOption = "stretch",
    flip: FlipOption = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS", help="Also the mIoU without this class; give it again for more."
        ),
    ] = None,
    limit: LimitOption = None,
    confusion: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the confusion matrix; extra [report]."),
    ] = None,
    json_: JsonOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Score an engine: mIoU, IoU per class and pixel accuracy, on the labels' own grid.

    Single scale, no flip. Void pixels and classes that never occur are left out.

    \b
    Examples:
      fasterseg-bench accuracy --root CamVid --split test
      fasterseg-bench accuracy --root CamVid --engine engine.onnx --confusion confusion.png
      fasterseg-bench accuracy --dataset cityscapes --root cityscapes --model my-student --json -
      fasterseg-bench accuracy --dataset my.toml --model run/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.bench.accuracy import check_dataset, check_excluded, score
    from fasterseg.datasets import dataset as named
    from fasterseg.runtime.select import EngineRequest, check_request, open_engine

    part, fitting = _split(split), _fit(fit)
    draw = None if confusion is None else _plotter(confusion)
    spec = named(dataset)
    check_excluded(spec.labels, exclude or [])
    request = EngineRequest(
        model=model, engine=engine, precision=precision, device=device,
        size=parse_size(size), threads=threads, tail=tail,
    )  # fmt: skip
    check_request(request)
    pairs = spec.pairs(spec.folder(root), part)[:limit]
    check_dataset(spec, part, pairs)
    opened = open_engine(request, spec.native_size, note)
    try:
        report = score(
            opened, spec, part, pairs,
            fit=fitting, flip=flip, exclude=exclude or [], on_image=_progress,
        )  # fmt: skip
    finally:
        opened.close()
    if json_ is not None:
        write_json(json_, _compact(report.to_json()))
    if confusion is not None and draw is not None:
        draw(confusion, report.matrix.counts, spec.labels.classes, report.title)
    if json_ != "-":
        _print_accuracy(report)


def submission(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder for the PNGs; OUTPUT.zip lies beside.")
    ],
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Cityscapes, with its folder leftImg8bit.")
    ],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val or test.")] = "test",
    engine: EngineOption = "auto",
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tail: TailOption = "auto",
    fit: FitOption = "stretch",
    flip: FlipOption = False,
    limit: LimitOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are already there.")
    ] = False,
    json_: JsonOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Make the files that the Cityscapes server scores: label ids at 1024x2048, PNGs and a zip.

    Label maps are not needed. Only models with the 19 classes of Cityscapes can take part.

    \b
    Examples:
      fasterseg-bench submission results --root cityscapes --model cityscapes-student
      fasterseg-bench submission results --root cityscapes --split val --engine engine.onnx
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.bench.submission import SIZE, check_target, write_submission
    from fasterseg.datasets import dataset as named
    from fasterseg.runtime.select import EngineRequest, check_request, open_engine

    part, fitting = _split(split), _fit(fit)
    request = EngineRequest(
        model=model, engine=engine, precision=precision, device=device,
        size=parse_size(size), threads=threads, tail=tail,
    )  # fmt: skip
    check_request(request)
    pairs = named("cityscapes").pairs(root, part)[:limit]
    check_target(output, pairs, overwrite)
    opened = open_engine(request, SIZE, note)
    try:
        made = write_submission(
            opened, part, pairs, output,
            fit=fitting, flip=flip, overwrite=overwrite, on_image=_progress,
        )  # fmt: skip
    finally:
        opened.close()
    if json_ is not None:
        write_json(json_, json.dumps(made.to_json(), indent=2))
    if json_ != "-":
        print(f"{made.images} class maps in {made.folder}; for the server: {made.archive}")


def _split(name: str) -> Split:
    from fasterseg.datasets import SPLITS
    from fasterseg.errors import UsageError

    if name not in SPLITS:
        raise UsageError(f"--split {name} is not one of {', '.join(SPLITS)}")
    return name


def _fit(name: str) -> Fit:
    from fasterseg.errors import UsageError
    from fasterseg.preprocess import FITS

    if name not in FITS:
        raise UsageError(f"--fit {name} is not one of {', '.join(FITS)}")
    return name


def _plotter(path: Path) -> Any:
    """`plots.confusion_matrix`, before minutes are spent on what it is to draw."""
    from fasterseg.errors import UsageError
    from fasterseg.registry import resolve

    if path.suffix.lower() != ".png":
        raise UsageError(f"--confusion {path} is no PNG; name a file that ends in .png")
    return resolve(PLOTS, "picture", "confusion matrix")


def _progress(done: int, total: int) -> None:
    if done % 50 == 0 and done < total:
        note(f"{done}/{total} pictures")


def _compact(facts: Mapping[str, Any]) -> str:
    """JSON with each row of the confusion matrix on one line."""
    text = json.dumps(facts, indent=2)
    rows = r"\[\s+\d+(?:,\s+\d+)*\s+\]"
    return re.sub(rows, lambda row: json.dumps(json.loads(row[0])), text)


def _print_accuracy(report: Accuracy) -> None:
    facts = report.to_json()
    print(
        f"{facts['model']} on {facts['engine']}/{facts['device']}, {facts['precision']}, "
        f"{facts['size']} (HxW): {facts['images']} pictures of {facts['dataset']} {facts['split']}"
    )
    width = max(len("class accuracy"), *(len(name) for name in facts["per_class_iou"]))
    for name, value in facts["per_class_iou"].items():
        print(f"  {name:<{width}}  {_figure(value)}")
    low, high = facts["miou_interval_95"]
    interval = f"(95 % over pictures: {low:.1f}-{high:.1f})"
    print(f"  {'mIoU':<{width}}  {_figure(facts['miou'])} %  {interval}")
    if facts["miou_without"] is not None:
        left_out = ", ".join(report.excluded)
        print(
            f"  {'mIoU':<{width}}  {_figure(facts['miou_without']['miou'])} %  without {left_out}"
        )
    print(f"  {'pixels':<{width}}  {_figure(facts['pixel_accuracy'])} %")
    print(f"  {'class accuracy':<{width}}  {_figure(facts['mean_class_accuracy'])} %")
    if (report.flip, report.fit) != (False, "stretch"):
        print(f"  {report.protocol}")
    if not facts["trained"]:
        note("note: these weights are untrained; the figures say nothing about the network")


def _figure(percent: float | None) -> str:
    return "absent" if percent is None else f"{percent:6.2f}"
