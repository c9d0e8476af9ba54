"""`fasterseg export --from`: what is told of a foreign network on the command line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from fasterseg.cli.options import note, parse_size

if TYPE_CHECKING:
    from fasterseg.deploy.export import Wrapping
    from fasterseg.graph.foreign import ChannelOrder, Contract, Layout

FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE.onnx",
        help="Wrap another network instead: logits of a picture, from any framework.",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="With --from: its classes in the order of its channels: cityscapes, camvid, bdd100k, "
        "a file of one name a line, or a .toml, .json or .csv with colours.",
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="With --from: subtracted from values in 0..1, in its channel order; one for all "
        "three, or one each. Default: ImageNet's 0.485,0.456,0.406.",
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="With --from: divided by. Default: ImageNet's 0.229,0.224,0.225. A network that "
        "takes 0..255: --mean 0 --std 1/255.",
    ),
]
OrderOption = Annotated[
    str | None,
    typer.Option(metavar="rgb|bgr", help="With --from: channel order it wants. Default: rgb."),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="8|4|1|labels",
        help="With --from: times its logits are smaller than the frame, or labels where it gives "
        "class ids. Default: as its shapes say.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        metavar="nchw|nhwc", help="With --from: layout of its picture and logits. Default: nchw."
    ),
]
LogitsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --from: which of its outputs, or of the values inside, are the logits.",
    ),
]


def order_of(
    source: Path,
    contract: Contract,
    *,
    classes: str | None,
    size: str | None,
    batch: int,
    stage: str,
    inline: bool,
) -> Wrapping:
    """What is told of another network.

    Raises:
        UsageError: a value cannot be right.
    """
    from fasterseg.deploy.classes import read_classes
    from fasterseg.deploy.export import Wrapping
    from fasterseg.errors import UsageError
    from fasterseg.graph.wrapping import STAGES

    if stage not in STAGES:
        raise UsageError(f"--stages {stage} is not for --from; take {' or '.join(STAGES)}")
    return Wrapping(
        source=source,
        labels=None if classes is None else read_classes(classes),
        contract=contract,
        size=parse_size(size),
        batch=batch,
        stage=stage,
        inline=inline,
    )


def wrap_foreign(order: Wrapping, output: Path | None, overwrite: bool) -> None:
    """Write a wrapped network and tell what it became."""
    from fasterseg.deploy.export import export_foreign

    target, spec = export_foreign(order, output, overwrite)
    print(target)
    note(
        f"{spec.name} {spec.size} (HxW) {spec.precision}, {len(spec.labels)} classes "
        f"({spec.labels.name}), {spec.channel_order} mean {_shown(spec.mean)} std "
        f"{_shown(spec.std)}, {target.stat().st_size / 1e6:.1f} MB; it ran on a frame"
    )
    note(f"run it: fasterseg-infer INPUT --engine {target}")


def contract_of(
    mean: str | None,
    std: str | None,
    channel_order: str | None,
    scale: str | None,
    layout: str | None,
    logits: str | None,
) -> Contract:
    """What the options tell; what they leave out is as with networks trained on ImageNet.

    Raises:
        UsageError: a value cannot be right.
    """
    from fasterseg.errors import UsageError
    from fasterseg.graph.foreign import SCALES, Contract
    from fasterseg.preprocess import MEAN, STD

    for option, value, known in (
        ("channel-order", channel_order, ("rgb", "bgr")),
        ("layout", layout, ("nchw", "nhwc")),
        ("scale", scale, (*map(str, reversed(SCALES)), "labels")),
    ):
        if value is not None and value not in known:
            raise UsageError(f"--{option} {value} is not one of {', '.join(known)}")
    means = MEAN if mean is None else _three("mean", mean)
    deviations = STD if std is None else _three("std", std)
    _check_range(means, deviations)
    factor = int(scale) if scale is not None and scale.isdigit() else None
    return Contract(
        mean=means,
        std=deviations,
        channel_order=cast("ChannelOrder", channel_order or "rgb"),
        scale="labels" if scale == "labels" else factor,
        layout=cast("Layout", layout or "nchw"),
        output=logits,
    )


def _three(option: Literal["mean", "std"], text: str) -> tuple[float, float, float]:
    """`0.485,0.456,0.406`, `1/255` or `0.5` -> a value for each channel."""
    from fasterseg.errors import UsageError

    try:
        values = [float(Fraction(part)) for part in text.replace(",", " ").split()]
    except (ValueError, ZeroDivisionError, OverflowError):
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UsageError(
            f"--{option} {text} is not one number or three, such as 0.485,0.456,0.406 or 1/255"
        )
    first, second, third = values
    return first, second, third


def _check_range(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Refuse what was meant for values in 0..255: labels would be wrong without a word."""
    from fasterseg.errors import UsageError

    if min(std) <= 0 or min(mean) < 0:
        raise UsageError(
            f"--mean {_shown(mean)} --std {_shown(std)}: a mean is not negative, a deviation is "
            "above 0"
        )
    if max(*mean, *std) > 1:
        raise UsageError(
            f"--mean {_shown(mean)} --std {_shown(std)} are for values in 0..255; here they are "
            "in 0..1, so divide both by 255: "
            f"--mean {_shown([m / 255 for m in mean])} --std {_shown([s / 255 for s in std])}"
        )


def _shown(values: tuple[float, ...] | list[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
