"""`fasterseg-bench accuracy`: mIoU of any engine on a labelled split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    ThreadsOption,
    note,
    parse_size,
    write_json,
)

if TYPE_CHECKING:
    from fasterseg.bench.accuracy import Accuracy


def accuracy(
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data set.")],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="camvid, cityscapes or bdd100k.")
    ] = "camvid",
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val or test.")] = "val",
    engine: EngineOption = "auto",
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    fit: Annotated[str, typer.Option(metavar="FIT", help="stretch or letterbox.")] = "stretch",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")
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
      fasterseg-bench accuracy --root CamVid --engine engine.onnx --json -
      fasterseg-bench accuracy --dataset cityscapes --root cityscapes --model my-student
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    import json

    from fasterseg.bench.accuracy import score
    from fasterseg.datasets import SPLITS
    from fasterseg.datasets import dataset as named
    from fasterseg.errors import UsageError
    from fasterseg.preprocess import FITS
    from fasterseg.runtime.select import EngineRequest, check_request, open_engine

    if split not in SPLITS:
        raise UsageError(f"--split {split} is not one of {', '.join(SPLITS)}")
    if fit not in FITS:
        raise UsageError(f"--fit {fit} is not one of {', '.join(FITS)}")
    spec = named(dataset)
    request = EngineRequest(
        model=model, engine=engine, precision=precision, device=device,
        size=parse_size(size), threads=threads,
    )  # fmt: skip
    check_request(request)
    pairs = spec.pairs(root, split)[:limit]
    opened = open_engine(request, spec.native_size, note)

    def progress(done: int, total: int) -> None:
        if done % 50 == 0 and done < total:
            note(f"{done}/{total} pictures")

    try:
        report = score(opened, spec, split, pairs, fit, progress)
    finally:
        opened.close()
    if json_ is not None:
        write_json(json_, json.dumps(report.to_json(), indent=2))
    if json_ != "-":
        _print_accuracy(report)


def _print_accuracy(report: Accuracy) -> None:
    facts = report.to_json()
    print(
        f"{facts['model']} on {facts['engine']}/{facts['device']}, {facts['precision']}, "
        f"{facts['size']} (HxW): {facts['images']} pictures of {facts['dataset']} {facts['split']}"
    )
    width = max(len(name) for name in facts["per_class_iou"])
    for name, value in facts["per_class_iou"].items():
        shown = "absent" if value is None else f"{value:6.2f}"
        print(f"  {name:<{width}}  {shown}")
    low, high = facts["miou_interval_95"]
    print(
        f"  {'mIoU':<{width}}  {facts['miou']:6.2f} %  (95 % over pictures: {low:.1f}-{high:.1f})"
    )
    print(f"  {'pixels':<{width}}  {facts['pixel_accuracy']:6.2f} %")
    if not facts["trained"]:
        note("note: these weights are untrained; the figures say nothing about the network")
