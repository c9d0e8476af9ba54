"""`fasterseg export` and `info`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fasterseg.cli.foreign import (
    ClassesOption,
    FromOption,
    LayoutOption,
    LogitsOption,
    MeanOption,
    OrderOption,
    ScaleOption,
    StdOption,
    contract_of,
    order_of,
    wrap_foreign,
)
from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    SizeOption,
    note,
    parse_size,
)
from fasterseg.cli.triton import (
    FormatOption,
    QueueDelayOption,
    ServerDeviceOption,
    refuse,
    serve,
    serve_foreign,
    serving_of,
)

if TYPE_CHECKING:
    from fasterseg.graph.precision import Profile
    from fasterseg.types import Precision, Size


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE.toml|ENGINE",
            help="Model name, genotype, or recipe; for --format triton an engine file (.onnx, "
            ".engine), too. None with --from.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE|FOLDER", help="The .onnx file, or the repository."
        ),
    ] = None,
    format_: FormatOption = "onnx",
    size: SizeOption = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="fp32 (default), fp16 or int8 (explicit Q/DQ)."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How int8 is written: cpu (default; uint8 activations, for ONNX Runtime and "
            "OpenVINO) or tensorrt (int8, zero point 0).",
        ),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Activation ranges for int8 (fasterseg calibrate) of your own."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Frames per call; default 1. With --format triton the most there may be; "
            "default 4.",
        ),
    ] = None,
    device: ServerDeviceOption = None,
    queue_delay_ms: QueueDelayOption = None,
    stages: Annotated[
        str,
        typer.Option(
            help="labels (frames in, class ids out), logits8 (frames in, 1/8 logits out) or "
            "network (normalised RGB NCHW in, full-size logits out)."
        ),
    ] = "labels",
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Leave batch, height and width free.")
    ] = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="Standard operators only, for OpenVINO.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    from_: FromOption = None,
    classes: ClassesOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channel_order: OrderOption = None,
    scale: ScaleOption = None,
    layout: LayoutOption = None,
    logits: LogitsOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Write a model as ONNX: uint8 BGR frames in, uint8 class ids out, everything inside.

    With --from, do the same to another network's ONNX file: infer, bench, accuracy and build then
    take it as they take ours. Its logits are enlarged bilinearly, corners aligned; a network that
    enlarges them in another way does so itself and is exported with full-size logits (scale 1).

    With --format triton, write a model of a Triton Inference Server repository instead:
    configuration, class names, and a README that says how to start the server and send a frame.

    \b
    Examples:
      fasterseg export fasterseg-camvid --size 360x640 -o engine.onnx
      fasterseg export fasterseg-student --size 1024x2048 --precision fp16 -o student.onnx
      fasterseg export fasterseg-camvid --precision int8 --profile tensorrt -o int8.onnx
      fasterseg export engines/recipes/fasterseg-camvid-fp32.toml
      fasterseg export fasterseg-camvid --stages network -o bare.onnx
      fasterseg export --from pidnet.onnx --classes cityscapes --size 512x1024 -o wrapped.onnx
      fasterseg export --from net.onnx --classes names.txt --mean 0.5 --std 0.5 --channel-order bgr
      fasterseg export fasterseg-camvid --format triton --size 360x640 -o models/
      fasterseg export student.engine --format triton -o models/
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.errors import UsageError

    told = {
        "--classes": classes, "--mean": mean, "--std": std, "--channel-order": channel_order,
        "--scale": scale, "--layout": layout, "--logits": logits,
    }  # fmt: skip
    serving = serving_of(format_, device, batch, queue_delay_ms)
    if serving is not None:
        other = {"--stages": stages if stages != "labels" else None, "--profile": profile}
        refuse("not with --format triton, which serves labels by ONNX Runtime", other)
    if from_ is None:
        refuse("only with --from FILE.onnx, for another network", told)
        if source is None:
            raise UsageError("name a model or a recipe, or another network: --from FILE.onnx")
        if serving is not None:
            serve(
                source, output, serving, size=parse_size(size), precision=precision,
                ranges=ranges, dynamic=dynamic, overwrite=overwrite,
            )  # fmt: skip
            return
        _export_model(
            source, output, parse_size(size), precision, profile, ranges, overwrite,
            stages=stages, batch=batch or 1, dynamic=dynamic, inline=inline,
        )  # fmt: skip
        return
    if source is not None:
        raise UsageError(f"'{source}' and --from {from_}: give a model, or a network to wrap")
    ours = {
        "--precision": precision, "--profile": profile, "--ranges": ranges,
        "--dynamic": dynamic or None,
    }  # fmt: skip
    refuse("only for models of ours; a wrapped network keeps the numbers of its file", ours)
    order = order_of(
        from_, contract_of(mean, std, channel_order, scale, layout, logits), classes=classes,
        size=size, batch=batch or 1, stage=stages, inline=inline,
    )  # fmt: skip
    if serving is not None:
        serve_foreign(order, output, serving, overwrite)
        return
    wrap_foreign(order, output, overwrite)


def _export_model(
    source: str,
    output: Path | None,
    size: Size | None,
    precision: str | None,
    profile: str | None,
    ranges: Path | None,
    overwrite: bool,
    **rest: Any,
) -> None:
    """Write the files of a model or a recipe; `rest` as in `EmitOptions`."""
    from fasterseg.deploy.export import export_onnx
    from fasterseg.deploy.recipe import BUILD_FOLDER, artefact_name, load_recipe
    from fasterseg.errors import UsageError
    from fasterseg.graph.emit import EmitOptions
    from fasterseg.runtime.model import resolve_model

    precision, profile = precision or "fp32", profile or "cpu"
    _check_model_options(source, rest["stages"], precision, profile)
    if source.endswith(".toml"):
        recipe, model = load_recipe(Path(source))
        sizes, precision, batch = recipe.engine_sizes(), recipe.precision, recipe.batch
        rest["batch"], profile = batch, recipe.profile
        if size is not None or (output is not None and len(sizes) > 1):
            raise UsageError("a recipe states its sizes and names its files; leave --size and -o")
    else:
        model = resolve_model(source)
        sizes = [size or model.train_size]
    if precision != "int8" and (ranges is not None or profile != "cpu"):
        raise UsageError(f"--ranges and --profile are for --precision int8, this is {precision}")
    if ranges is not None:
        model = replace(model, ranges=ranges)
    options = EmitOptions(
        stage=rest.pop("stages"),
        precision=cast("Precision", precision),
        profile=cast("Profile", profile),
        **rest,
    )
    for engine_size in sizes:
        target = output or BUILD_FOLDER / artefact_name(model.name, engine_size, options)
        export_onnx(model, engine_size, options, target, overwrite)
        print(target)
        note(f"{model.name} {engine_size} (HxW) {precision}, {target.stat().st_size / 1e6:.1f} MB")
    if not model.trained:
        note(f"note: {model.name} has untrained (seeded random) weights")


def _check_model_options(source: str, stage: str, precision: str, profile: str) -> None:
    """Refuse values that cannot be right."""
    from fasterseg.errors import UsageError
    from fasterseg.graph.emit import EMITTED
    from fasterseg.graph.precision import PROFILES
    from fasterseg.graph.signature import STAGES

    if source.endswith(".onnx"):
        raise UsageError(
            f"{source} is no model of ours; another network's file is wrapped: fasterseg export "
            f"--from {source} --classes FILE -o WRAPPED.onnx"
        )
    for option, value, known in (
        ("stages", stage, STAGES), ("precision", precision, EMITTED), ("profile", profile, PROFILES)
    ):  # fmt: skip
        if value not in known:
            raise UsageError(f"--{option} {value} is not one of {', '.join(known)}")


def info(
    target: Annotated[
        str, typer.Argument(metavar="ENGINE|MODEL", help="Engine file, model name or genotype.")
    ],
    json_: Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Print what an engine file or a model is: classes, size, precision, weights, hashes."""
    import json

    from fasterseg.cli.describe import (
        engine_facts,
        model_facts,
        plan_facts,
        print_facts,
        read_verdict,
    )
    from fasterseg.runtime.model import resolve_model
    from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
    from fasterseg.runtime.plan_files import SUFFIXES

    if target.endswith(".onnx"):
        facts = engine_facts(OnnxRuntimeEngine.read_spec(Path(target)))
        verdict = Path(f"{target}.parity.json")
        if verdict.is_file():
            facts["parity"] = read_verdict(verdict)
    elif target.endswith(SUFFIXES):
        facts = plan_facts(Path(target))
    else:
        facts = model_facts(resolve_model(target))
    if json_:
        print(json.dumps(facts, indent=2))
    else:
        is_plan = target.endswith(SUFFIXES)
        print_facts({**facts, "parity": facts["parity"] or "not run"} if is_plan else facts)
