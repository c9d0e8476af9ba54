"""`fasterseg build`: TensorRT engines, for the GPU of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    PluginsOption,
    SizeOption,
    note,
    parse_size,
)

if TYPE_CHECKING:
    from fasterseg.graph.emit import EmitOptions
    from fasterseg.graph.precision import Profile
    from fasterseg.graph.signature import Stage
    from fasterseg.runtime.foreign import Exported
    from fasterseg.runtime.model import Model
    from fasterseg.runtime.plan_files import BuildOptions
    from fasterseg.runtime.plan_store import Job
    from fasterseg.runtime.trt_target import Target
    from fasterseg.types import Precision, Size


def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RECIPE.toml|FILE.onnx",
            help="Model name, genotype, recipe, or an engine file (fasterseg export).",
        ),
    ],
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="tensorrt or tensorrt-rtx.")
    ] = "tensorrt",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The .engine file to write; its description goes to FILE.json. Default: the "
            "engine cache, where --engine finds it; a recipe's go to engines/build.",
        ),
    ] = None,
    size: SizeOption = None,
    precision: Annotated[
        str,
        typer.Option(metavar="TYPE", help="auto (fp16; an .onnx: its own), fp32, fp16 or int8."),
    ] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Frames per call. [default: 1]")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="labels (default; all in the engine) or logits8 (the last step by our CUDA "
            "kernel)."
        ),
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Activation ranges of your own, for int8.")
    ] = None,
    plugins: PluginsOption = "auto",
    min_size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Free sizes from this one on; tuned for --size."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Free sizes up to this one.")
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most frames per call, with free sizes.")
    ] = 1,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="sm_NN",
            help="tensorrt-rtx: compute capability to build for; give it again for more. Default: "
            "this machine's GPU; without one sm_75, sm_80, sm_86, sm_89 and sm_120.",
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Most scratch memory of a layer.")
    ] = None,
    max_aux_streams: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Further streams in a run; default: the runtime's."),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(min=0, max=5, metavar="0..5", help="0 builds quickest; default: 3."),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Runs under newer TensorRT too; holds code that runs on the host.",
        ),
    ] = False,
    hardware: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="none (this GPU's kind), ampere-plus or same-compute-capability."
        ),
    ] = "none",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Build it even if it is there.")
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Build engines, and compare each with the reference where it can run (exit code 5).

    TensorRT builds on the machine, and for the GPU, that will run the engine. TensorRT-RTX also
    builds without a GPU; nothing is compared then, and the description says `parity: null`.

    \b
    Examples:
      fasterseg build fasterseg-camvid --size 360x640
      fasterseg build fasterseg-camvid --precision int8 -o camvid.engine
      fasterseg build fasterseg-student --size 1024x2048 --plugins off
      fasterseg build engines/recipes/fasterseg-camvid-fp16.toml
      fasterseg build fasterseg-camvid --engine tensorrt-rtx --target sm_89
      fasterseg build wrapped.onnx -o wrapped.engine
      fasterseg build fasterseg-camvid --size 720x1280 --min-size 360x640 --max-size 1088x1920
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.config import from_mapping
    from fasterseg.deploy.recipe import BUILD_FOLDER
    from fasterseg.errors import OutputExistsError
    from fasterseg.runtime.plan_files import BuildOptions
    from fasterseg.runtime.plan_store import Job, plan_name

    _check(engine, precision, stages, plugins, hardware, output)
    model, sizes, emit, agreement = _ordered(source, size, precision, batch, stages, output)
    if ranges is not None:
        model = _with_ranges(model, ranges)
    options = from_mapping(
        {
            "plugins": plugins,
            "workspace_mib": workspace,
            "max_aux_streams": max_aux_streams,
            "optimization_level": optimization_level,
            "version_compatible": version_compatible,
            "hardware": hardware,
            "targets": target or [],
        },
        BuildOptions,
        "fasterseg build",
    )
    if min_size is not None or max_size is not None or max_batch > 1:
        _refuse_free(model)
        options = replace(
            options, dynamic=_reach(min_size, sizes[0], max_size), max_batch=max_batch
        )
        emit = replace(emit, dynamic=True)
    found = _target(engine, emit.precision, options)
    for engine_size in sizes:
        job = Job(model, engine_size, emit, found, options, agreement)
        file = output
        if file is None and source.endswith(".toml"):
            file = BUILD_FOLDER / f"{plan_name(job)}.engine"
        if file is not None and file.exists() and not overwrite:
            raise OutputExistsError(f"{file} exists; replace it with --overwrite")
        _make(job, file, overwrite)


def _check(
    engine: str, precision: str, stages: str | None, plugins: str, hardware: str,
    output: Path | None,
) -> None:  # fmt: skip
    """Refuse values that cannot be right."""
    from fasterseg.errors import UnknownNameError, UsageError
    from fasterseg.graph.emit import EMITTED
    from fasterseg.registry import unknown
    from fasterseg.runtime.plan_files import HARDWARE, SUFFIXES
    from fasterseg.runtime.select import COMPILED, PLUGIN_CHOICES

    if engine not in COMPILED:
        raise UnknownNameError(
            unknown("engine to build", engine, sorted(COMPILED))
            + " Other backends take ONNX files: fasterseg export"
        )
    for option, value, known in (
        ("precision", precision, ("auto", *EMITTED)),
        ("stages", stages or "labels", ("labels", "logits8")),
        ("plugins", plugins, PLUGIN_CHOICES),
        ("hardware", hardware, HARDWARE),
    ):
        if value not in known:
            raise UsageError(f"--{option} {value} is not one of {', '.join(known)}")
    if output is not None and output.suffix not in SUFFIXES:
        raise UsageError(f"'{output}' does not end in {' or '.join(SUFFIXES)}")


def _ordered(
    source: str,
    size: str | None,
    precision: str,
    batch: int | None,
    stages: str | None,
    output: Path | None,
) -> tuple[Model | Exported, list[Size], EmitOptions, float | None]:
    """What the arguments or the recipe ask for: model, sizes, graph, agreement demanded."""
    from fasterseg.deploy.recipe import load_recipe
    from fasterseg.errors import UsageError
    from fasterseg.graph.emit import EmitOptions
    from fasterseg.runtime.model import resolve_model

    if source.endswith(".onnx"):
        return _exported(Path(source), parse_size(size), precision, batch, stages)
    agreement = None
    if source.endswith(".toml"):
        recipe, model = load_recipe(Path(source))
        sizes, chosen, batch = recipe.engine_sizes(), recipe.precision, recipe.batch
        if size is not None or precision != "auto" or (output is not None and len(sizes) > 1):
            raise UsageError(
                "a recipe states its sizes and precision and names its files; leave --size, "
                "--precision and -o out"
            )
        agreement = recipe.thresholds.pixel_agreement
    else:
        model = resolve_model(source)
        sizes = [parse_size(size) or model.train_size]
        chosen = cast("Precision", "fp16" if precision == "auto" else precision)
    profile: Profile = "tensorrt" if chosen == "int8" else "cpu"
    stage: Stage = "logits8" if stages == "logits8" else "labels"
    return model, sizes, EmitOptions(stage, chosen, batch or 1, profile=profile), agreement


def _exported(
    file: Path, size: Size | None, precision: str, batch: int | None, stages: str | None
) -> tuple[Exported, list[Size], EmitOptions, float | None]:
    """What an engine file is; the options can only agree with it."""
    from fasterseg.deploy.export import read_exported
    from fasterseg.errors import UsageError
    from fasterseg.graph.emit import EmitOptions

    model = read_exported(file)
    spec = model.spec
    assert spec.size is not None, "free sizes are refused"
    for option, asked, found in (
        ("size", size, spec.size),
        ("precision", None if precision == "auto" else precision, spec.precision),
        ("batch", batch, spec.batch),
        ("stages", stages, spec.output),
    ):
        if asked not in (None, found):
            raise UsageError(
                f"--{option} {asked}: {file} is fixed to {found}. Leave it out, or export that "
                "file again (fasterseg export)"
            )
    stage: Stage = "logits8" if spec.output == "logits8" else "labels"
    emit = EmitOptions(stage, spec.precision, spec.batch or 1, profile=spec.profile or "cpu")
    return model, [spec.size], emit, None


def _with_ranges(model: Model | Exported, ranges: Path) -> Model:
    from fasterseg.errors import UsageError
    from fasterseg.runtime.model import Model

    if not isinstance(model, Model):
        raise UsageError(f"--ranges is for models; {model.file} has its numbers inside")
    return replace(model, ranges=ranges)


def _refuse_free(model: Model | Exported) -> None:
    """Free sizes come of a model, whose graph is written for them."""
    from fasterseg.errors import UsageError
    from fasterseg.runtime.model import Model

    if not isinstance(model, Model):
        raise UsageError(
            f"--min-size, --max-size and --max-batch are for models; {model.file} is fixed to "
            f"{model.spec.size} (HxW)"
        )


def _reach(low: str | None, best: Size, high: str | None) -> tuple[str, str, str]:
    """Smallest, tuned-for and largest frames."""
    from fasterseg.errors import UsageError

    smallest, largest = parse_size(low) or best, parse_size(high) or best
    for axis in (0, 1):
        if not smallest[axis] <= best[axis] <= largest[axis]:
            raise UsageError(
                f"--size {best} is not between --min-size {smallest} and --max-size {largest} (HxW)"
            )
    return str(smallest), str(best), str(largest)


def _target(engine: str, precision: Precision, options: BuildOptions) -> Target:
    """What can be built here; TensorRT needs the GPU, RTX does not."""
    from fasterseg.registry import resolve
    from fasterseg.runtime.base import ENGINES
    from fasterseg.runtime.driver import find_gpu
    from fasterseg.runtime.trt_surface import load_api
    from fasterseg.runtime.trt_target import RTX, find_target

    # Which of the two is missing: the package comes first, it is one line away.
    load_api(engine)
    gpu = find_gpu()
    if gpu is not None or engine != RTX:
        resolve(ENGINES, "engine", engine).resolve_device("cuda")
    return find_target(engine, precision, options, gpu, note)


def _make(job: Job, file: Path | None, overwrite: bool) -> None:
    from fasterseg.runtime.plan_store import find_or_build_plan, write_engine

    if file is not None:
        write_engine(job, file, note)
        print(file)
    else:
        print(find_or_build_plan(job, note, rebuild=overwrite, must_keep=True))
    library = job.target.plugins
    note(f"plugins: {library.path}" if library else "plugins: none, standard layers")
    if not job.model.trained:
        note(f"note: {job.model.name} has untrained (seeded random) weights")
