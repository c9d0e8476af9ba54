"""`fasterseg models`: the models a name leads to; taking in official checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import DebugOption, LogFormat, LogFormatOption, new_app, note

if TYPE_CHECKING:
    from fasterseg.runtime.model import Model

app = new_app("The models that a name leads to: those of the package and those you imported.")


@app.command("list")
def list_models(log_format: LogFormatOption = LogFormat.TEXT, debug: DebugOption = False) -> None:
    """List every model with its classes, training size and whether it has trained weights."""
    from fasterseg.runtime.model import DEFAULT_MODEL, list_models

    rows = [("NAME", "CLASSES", "TRAINED AT", "WEIGHTS", "ORIGIN", "ABOUT")]
    for model in list_models():
        name = f"{model.name} *" if model.name == DEFAULT_MODEL else model.name
        weights = "trained" if model.trained else "untrained"
        rows.append(
            (
                name,
                f"{len(model.labels)} {model.labels.name}",
                str(model.train_size),
                weights,
                model.origin,
                model.about,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        print("  ".join([*cells, row[5]]))
    note("* the default model. Sizes are height x width.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Model name or genotype .json.")],
    json_: Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Show one model: architecture, parameters, multiply-adds, classes, licence, hash."""
    import json

    from fasterseg.cli.describe import model_facts, print_facts
    from fasterseg.runtime.model import resolve_model

    facts = model_facts(resolve_model(name))
    if json_:
        print(json.dumps(facts, indent=2))
    else:
        print_facts(facts)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Official checkpoint: a PyTorch state dict.")],
    name: Annotated[str, typer.Option(help="Name the model gets.")],
    arch: Annotated[str, typer.Option(help="student (weights1.pt) or teacher (weights0.pt).")],
    labels: Annotated[str, typer.Option(help="Label set of its classes.")] = "cityscapes",
    train_size: Annotated[
        str, typer.Option(metavar="HxW", help="Size it was trained at.")
    ] = "1024x2048",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Take in an official FasterSeg checkpoint; the model is then a name like any other.

    The file is read as tensors only: a pickle with code in it is refused. Keys and shapes must
    fit the architecture exactly, training heads may be there or not. Needs the extra [train].
    """
    from fasterseg.errors import UsageError
    from fasterseg.labels import label_set
    from fasterseg.registry import resolve
    from fasterseg.runtime.model import add_model, resolve_model
    from fasterseg.types import Size

    if arch not in ("student", "teacher"):
        raise UsageError(f"--arch {arch} is not student or teacher")
    size = Size.parse(train_size)
    label_names = label_set(labels)
    base = resolve_model(f"fasterseg-{arch}")
    genotype = base.genotype.with_classes(len(label_names), name)
    importer = resolve({"import": "fasterseg.nn.weights:import_official"}, "command", "import")
    from fasterseg.arch.plan import plan

    arrays = importer(file, plan(genotype, size, aux_heads=True))
    model: Model = add_model(
        name, genotype, label_names, size, arrays, f"imported from {file.name}", overwrite
    )
    note(f"imported {file} as '{name}' ({sum(a.size for a in arrays.values()):,} values)")
    note(f"run it: fasterseg-infer video.mp4 --model {model.name}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="An imported model.")],
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Delete an imported model."""
    from fasterseg.runtime.model import remove_model

    note(f"removed {remove_model(name)}")
