"""`fasterseg export` and `info`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    SizeOption,
    note,
    parse_size,
)

if TYPE_CHECKING:
    from fasterseg.types import Size


def export(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|RECIPE.toml", help="Model name, genotype, or recipe.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The .onnx file to write.")
    ] = None,
    size: SizeOption = None,
    precision: Annotated[
        str, typer.Option(metavar="TYPE", help="fp32, fp16 or int8 (explicit Q/DQ).")
    ] = "fp32",
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How int8 is written: cpu (uint8 activations, for ONNX Runtime and OpenVINO) or "
            "tensorrt (int8, zero point 0).",
        ),
    ] = "cpu",
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Activation ranges for int8 (fasterseg calibrate) of your own."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Frames per call.")] = 1,
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
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Write a model as ONNX: uint8 BGR frames in, uint8 class ids out, everything inside.

    \b
    Examples:
      fasterseg export fasterseg-camvid --size 360x640 -o engine.onnx
      fasterseg export fasterseg-student --size 1024x2048 --precision fp16 -o student.onnx
      fasterseg export fasterseg-camvid --precision int8 --profile tensorrt -o int8.onnx
      fasterseg export engines/recipes/fasterseg-camvid-fp32.toml
      fasterseg export fasterseg-camvid --stages network -o bare.onnx
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.deploy.export import export_onnx
    from fasterseg.deploy.recipe import BUILD_FOLDER, artefact_name, load_recipe
    from fasterseg.errors import UsageError
    from fasterseg.graph.emit import EMITTED, EmitOptions
    from fasterseg.graph.precision import PROFILES
    from fasterseg.graph.signature import STAGES
    from fasterseg.runtime.model import resolve_model

    if stages not in STAGES:
        raise UsageError(f"--stages {stages} is not one of {', '.join(STAGES)}")
    if precision not in EMITTED:
        raise UsageError(f"--precision {precision} is not one of {', '.join(EMITTED)}")
    if profile not in PROFILES:
        raise UsageError(f"--profile {profile} is not one of {', '.join(PROFILES)}")
    sizes: list[Size]
    if source.endswith(".toml"):
        recipe, model = load_recipe(Path(source))
        sizes, precision, batch = recipe.engine_sizes(), recipe.precision, recipe.batch
        profile = recipe.profile
        if size is not None or (output is not None and len(sizes) > 1):
            raise UsageError("a recipe states its sizes and names its files; leave --size and -o")
    else:
        model = resolve_model(source)
        sizes = [parse_size(size) or model.train_size]
    if precision != "int8" and (ranges is not None or profile != "cpu"):
        raise UsageError(f"--ranges and --profile are for --precision int8, this is {precision}")
    if ranges is not None:
        model = replace(model, ranges=ranges)
    options = EmitOptions(stages, precision, batch, dynamic, inline, profile)
    for engine_size in sizes:
        target = output or BUILD_FOLDER / artefact_name(model.name, engine_size, options)
        export_onnx(model, engine_size, options, target, overwrite)
        print(target)
        note(f"{model.name} {engine_size} (HxW) {precision}, {target.stat().st_size / 1e6:.1f} MB")
    if not model.trained:
        note(f"note: {model.name} has untrained (seeded random) weights")


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

    from fasterseg.cli.describe import engine_facts, model_facts, plan_facts, print_facts
    from fasterseg.runtime.model import resolve_model
    from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
    from fasterseg.runtime.plan_files import SUFFIXES

    if target.endswith(".onnx"):
        facts = engine_facts(OnnxRuntimeEngine.read_spec(Path(target)))
        verdict = Path(f"{target}.parity.json")
        if verdict.is_file():
            facts["parity"] = json.loads(verdict.read_text())
    elif target.endswith(SUFFIXES):
        facts = plan_facts(Path(target))
    else:
        facts = model_facts(resolve_model(target))
    if json_:
        print(json.dumps(facts, indent=2))
    else:
        is_plan = target.endswith(SUFFIXES)
        print_facts({**facts, "parity": facts["parity"] or "not run"} if is_plan else facts)
