"""`fasterseg-search show`: a network as a diagram, in the terminal or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    SizeOption,
    parse_size,
)

if TYPE_CHECKING:
    from fasterseg.retarget.diagram import Diagram, Part

PICTURES: Final = {"picture": "fasterseg.retarget.picture:write_picture"}
"""What draws; the packages behind it are optional."""


def show(
    network: Annotated[
        str,
        typer.Argument(
            metavar="GENOTYPE.json|MODEL",
            help="Genotype file, folder with a model card, or name (`fasterseg models list`).",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The .svg or .png to draw; default: as text."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Latency table: what each part and the whole cost."),
    ] = None,
    size: SizeOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Draw a network: its scales, layers, operators and channels, and what it costs.

    The size is that of the table, else the one the model was trained at, unless --size is given.

    \b
    Examples:
      fasterseg-search show fasterseg-student
      fasterseg-search show runs/mine/genotype.json --table runs/mine/table.json
      fasterseg-search show runs/mine/genotype.json -o network.svg
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.errors import OutputExistsError
    from fasterseg.registry import resolve

    if output is not None and output.exists() and not overwrite:
        raise OutputExistsError(f"{output} exists; --overwrite replaces it")
    # Before anything is read: it may need a package that is not there.
    draw = resolve(PICTURES, "drawing", "picture") if output is not None else None
    diagram = _diagram(network, table, size)
    if draw is not None:
        draw(diagram, output)
        print(output)
        return
    print("\n".join(_lines(diagram)))


def _diagram(network: str, table_path: Path | None, size: str | None) -> Diagram:
    """The network at the size that was asked for, priced where there is a table."""
    from fasterseg.arch.latency import LatencyTable
    from fasterseg.arch.plan import plan
    from fasterseg.retarget.diagram import lay_out
    from fasterseg.runtime.model import resolve_model

    model = resolve_model(network)
    table = LatencyTable.load(table_path) if table_path is not None else None
    chosen = parse_size(size) or (table.size if table is not None else model.train_size)
    return lay_out(plan(model.genotype, chosen), table)


def _lines(diagram: Diagram) -> list[str]:
    """Facts, diagram, legend, table of parts."""
    from fasterseg.retarget.diagram import legend
    from fasterseg.retarget.diagram_text import text

    return [
        *diagram.facts,
        "",
        *text(diagram),
        "",
        *legend(diagram).values(),
        "",
        *_table(diagram),
    ]


def _table(diagram: Diagram) -> list[str]:
    """Every part of the network; milliseconds where there is a table."""
    from fasterseg.cli.bench_text import columns

    priced = diagram.table is not None
    head = ["layer", "part", "branch", "op", "rate", "in -> out", "M mult-adds"]
    rows = [[*_row(part), *([_ms(part)] if priced else [])] for part in diagram.parts()]
    lines = columns([*head, *(["ms"] if priced else [])], rows)
    if priced:
        lines.append("")
        lines.append(
            "ms: rows of the table as measured; their calibrated sum stands above"
            if diagram.table is not None and diagram.table.calibration
            else "ms: rows of the table as measured; their sum stands above"
        )
    return lines


def _row(part: Part) -> list[str]:
    same = part.rate_in == part.rate_out
    return [
        "" if part.layer is None else str(part.layer),
        "cell" if part.layer is not None else part.role,
        "+".join(map(str, part.branches)),
        part.op,
        f"1/{part.rate_out}" if same else f"1/{part.rate_in} -> 1/{part.rate_out}",
        f"{part.in_channels} -> {part.out_channels}",
        f"{part.macs / 1e6:.2f}",
    ]


def _ms(part: Part) -> str:
    return "-" if part.ms is None else f"{part.ms:.3f}"
