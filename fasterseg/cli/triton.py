"""`fasterseg export --format triton`: engines into a model repository of a Triton server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fasterseg.cli.options import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fasterseg.deploy.export import Wrapping
    from fasterseg.deploy.triton import Servable, Serving
    from fasterseg.runtime.base import Device
    from fasterseg.types import Precision, Size

FORMATS = ("onnx", "triton")

FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="onnx|triton",
        help="A file, or a model in a repository of Triton Inference Server (-o FOLDER).",
    ),
]
ServerDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="With --format triton: auto (the server's GPUs where it has any; default), cpu, cuda.",
    ),
]
QueueDelayOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1000.0,
        metavar="MS",
        help="With --format triton: longest wait of a frame for others to share its call. "
        "Default: 0.5 ms.",
    ),
]


def serving_of(
    format_: str, device: str | None, batch: int | None, queue_delay_ms: float | None
) -> Serving | None:
    """How the server is to run the model; None where a file is wanted.

    Raises:
        UsageError: a value cannot be right, or says nothing of a file.
    """
    from fasterseg.errors import UsageError

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_} is not one of {', '.join(FORMATS)}")
    if format_ == "onnx":
        refuse(
            "only with --format triton", {"--device": device, "--queue-delay-ms": queue_delay_ms}
        )
        return None
    if device not in (None, "auto", "cpu", "cuda"):
        raise UsageError(f"--device {device} is not one of auto, cpu, cuda")
    from fasterseg.deploy.triton import Serving

    serving = Serving(device=cast("Device", device or "auto"), max_batch=batch)
    return serving if queue_delay_ms is None else replace(serving, queue_delay_ms=queue_delay_ms)


def refuse(reason: str, options: Mapping[str, object]) -> None:
    """Refuse options that would be ignored.

    Raises:
        UsageError: one of them is not None.
    """
    from fasterseg.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {reason}")


def serve(
    source: str,
    output: Path | None,
    serving: Serving,
    *,
    size: Size | None,
    precision: str | None,
    ranges: Path | None,
    dynamic: bool,
    overwrite: bool,
) -> None:
    """Put a model, each size of a recipe, or an engine file into a repository."""
    from fasterseg.deploy.triton import servable_file
    from fasterseg.runtime.base import SUFFIXES

    if not source.endswith(tuple(SUFFIXES)):
        _serve_model(source, output, serving, size, precision, ranges, dynamic, overwrite)
        return
    made = {
        "--size": size, "--precision": precision, "--ranges": ranges, "--dynamic": dynamic or None,
    }  # fmt: skip
    refuse(f"{source} is an engine already; name the model to make another one", made)
    _write(servable_file(Path(source)), output, serving, overwrite)


def serve_foreign(order: Wrapping, output: Path | None, serving: Serving, overwrite: bool) -> None:
    """Put another network, wrapped, into a repository."""
    from fasterseg.deploy.triton import servable_foreign

    servable = servable_foreign(order)
    _write(servable, output, replace(serving, max_batch=None), overwrite)


def _serve_model(
    source: str,
    output: Path | None,
    serving: Serving,
    size: Size | None,
    precision: str | None,
    ranges: Path | None,
    dynamic: bool,
    overwrite: bool,
) -> None:
    from fasterseg.deploy.recipe import load_recipe
    from fasterseg.deploy.triton import servable_model
    from fasterseg.errors import UsageError
    from fasterseg.runtime.model import resolve_model

    if source.endswith(".toml"):
        refuse("the recipe says it", {"--size": size, "--precision": precision})
        recipe, model = load_recipe(Path(source))
        if recipe.profile != "cpu":
            raise UsageError(
                f"{source} is for TensorRT, whose engines are built first: fasterseg build "
                f"{source}, then fasterseg export FILE.engine --format triton"
            )
        sizes, chosen = recipe.engine_sizes(), recipe.precision
        if serving.max_batch is None and recipe.batch > 1:
            serving = replace(serving, max_batch=recipe.batch)
    else:
        model = resolve_model(source)
        sizes, chosen = [size or model.train_size], cast("Precision", precision or "fp32")
    if ranges is not None:
        if chosen != "int8":
            raise UsageError(f"--ranges is for --precision int8, this is {chosen}")
        model = replace(model, ranges=ranges)
    for engine_size in sizes:
        servable = servable_model(model, engine_size, chosen, dynamic=dynamic)
        name = model.name if len(sizes) == 1 else f"{model.name}_{engine_size}"
        _write(servable, output, serving, overwrite, name)
    if not model.trained:
        note(f"note: {model.name} has untrained (seeded random) weights")


def _write(
    servable: Servable,
    output: Path | None,
    serving: Serving,
    overwrite: bool,
    name: str | None = None,
) -> None:
    from fasterseg.deploy.recipe import BUILD_FOLDER
    from fasterseg.deploy.triton import README, write_repository

    repository = output or BUILD_FOLDER / "triton"
    folder = write_repository(servable, repository, serving, name=name, overwrite=overwrite)
    print(folder)
    spec = servable.spec
    note(
        f"{spec.name} {spec.size or 'any size'} (HxW) {spec.precision}, "
        f"{len(servable.content) / 1e6:.1f} MB; start the server and send a frame: "
        f"{folder / README}"
    )
