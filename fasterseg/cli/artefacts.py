"""`fasterseg export`, `verify` and `info`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import (
    DebugOption,
    DeviceOption,
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
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from fasterseg.deploy.parity import Agreement
    from fasterseg.runtime.base import Engine
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


def verify(
    reference: Annotated[
        str, typer.Argument(metavar="A", help="Reference: an engine file or a backend's name.")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="B", help="Candidate: an engine file or a backend's name.")
    ],
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Image, folder, glob or video to compare on; default: 8 rendered streets."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many frames.")] = 64,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of labels that must agree; default by B's precision: "
            "0.9999 (fp32), 0.999 (fp16), none (int8).",
        ),
    ] = None,
    json_: JsonOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Compare two engines label by label on the same frames; exit code 5 below the threshold.

    Backends run --model; A in fp32, B in --precision. The verdict of an engine file B is kept
    beside it as FILE.parity.json.

    \b
    Examples:
      fasterseg verify torch onnxruntime --model fasterseg-camvid
      fasterseg verify torch engine.onnx --frames drive.mp4
      fasterseg verify a.onnx b.onnx --json -
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    import json

    from fasterseg.deploy.parity import compare_engines
    from fasterseg.errors import ParityError

    engine_size = parse_size(size)
    pair = _open_pair(reference, candidate, model, engine_size, precision, device, threads)
    try:
        size_at = pair[1].spec.size
        assert size_at is not None
        report = compare_engines(*pair, _frames(frames, limit, size_at), threshold)
    finally:
        for engine in pair:
            engine.close()
    text = json.dumps(report.to_json(), indent=2)
    if json_ is not None:
        write_json(json_, text)
    _print_agreement(report)
    if Path(candidate).is_file():
        write_json(f"{candidate}.parity.json", text)
    if not report.passed:
        raise ParityError(
            f"{report.agreement:.4%} of the labels agree, {report.threshold:.4%} are demanded; "
            f"worst frame {report.worst_frame} ({report.worst_agreement:.4%})"
        )


def _open_pair(
    reference: str,
    candidate: str,
    model: str,
    size: Size | None,
    precision: str,
    device: str,
    threads: int | None,
) -> tuple[Engine, Engine]:
    """Both engines at one size: that of an engine file where there is one."""
    from fasterseg.runtime.select import EngineRequest, engine_file, open_engine
    from fasterseg.types import Size

    source = Size(360, 640)
    a = EngineRequest(model, reference, "auto", device, size, threads=threads)
    b = EngineRequest(model, candidate, precision, device, size, threads=threads)
    if engine_file(a) is None:
        a = replace(a, precision="fp32")
        if engine_file(b) is not None:
            second = open_engine(b, source, note)
            return open_engine(replace(a, size=second.spec.size), source, note), second
    first = open_engine(a, source, note)
    if engine_file(b) is None:
        b = replace(b, size=first.spec.size)
    return first, open_engine(b, source, note)


def _frames(source: str | None, limit: int, size: Size) -> Iterator[NDArray[np.uint8]]:
    """Frames to compare on: the user's, or rendered streets."""
    if source is None:
        from fasterseg.streets import images

        for image, _ in images(seed=0, count=min(limit, 8), size=size):
            yield image
        return
    from fasterseg.stream.sources import open_source
    from fasterseg.stream.sources_options import SourceOptions

    opened = open_source(source, SourceOptions(limit=limit))
    try:
        for frame in opened:
            yield frame.image
    finally:
        opened.close()


def _print_agreement(report: Agreement) -> None:
    note(f"A  {report.reference}")
    note(f"B  {report.candidate}")
    note(f"{report.frames} frames at {report.size} (HxW)")
    for name, share in report.class_shares.items():
        iou = report.per_class_iou[name]
        shown = "absent" if iou is None else f"IoU {iou:.4f}"
        note(f"  {name:<14} {share:7.2%} of A   {shown}")
    if report.threshold > 0:
        verdict = "passed" if report.passed else "FAILED"
        judged = f"(threshold {report.threshold:.4%}): {verdict}"
    else:
        judged = "(not gated: int8 is judged by mIoU, fasterseg-bench accuracy)"
    note(
        f"{report.agreement:.4%} of the labels agree {judged}; worst frame "
        f"{report.worst_frame}: {report.worst_agreement:.4%}"
    )
    if not report.is_meaningful:
        note(
            f"note: only {report.meaningful_classes} classes hold 2 % of the pixels or more; with "
            "so few, agreement proves little. Compare on other frames or with trained weights"
        )


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

    from fasterseg.cli.describe import engine_facts, model_facts, print_facts
    from fasterseg.runtime.model import resolve_model
    from fasterseg.runtime.onnxrt import OnnxRuntimeEngine

    if target.endswith(".onnx"):
        facts = engine_facts(OnnxRuntimeEngine.read_spec(Path(target)))
        verdict = Path(f"{target}.parity.json")
        if verdict.is_file():
            facts["parity"] = json.loads(verdict.read_text())
    else:
        facts = model_facts(resolve_model(target))
    if json_:
        print(json.dumps(facts, indent=2))
    else:
        print_facts(facts)
