"""`fasterseg-bench compare` and `report`: what is made of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fasterseg.cli.options import DebugOption, LogFormat, LogFormatOption, note

REPORTS: Final = {"html": "fasterseg.bench.report:page"}
"""Form of a report -> what makes it; the packages behind it are optional."""


def report(
    records: Annotated[
        list[Path] | None, typer.Argument(metavar="RECORD...", help="Records (JSON).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The .html to write.")
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Result of `accuracy --json` for the plot of accuracy against latency; give it "
            "again for more.",
        ),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the tables between <!-- bench: RECORD --> and <!-- /bench --> anew, each "
            "from the record it names.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """One self-contained HTML page of records: distributions, FPS by size, accuracy, layers.

    \b
    Examples:
      fasterseg-bench report benchmarks/results/*/*-engines.json -o report.html
      fasterseg-bench report bench.json --accuracy accuracy.json -o report.html
      fasterseg-bench report --readme README.md
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.bench.readme import refresh
    from fasterseg.bench.records import BenchRecord
    from fasterseg.bench.scores import Score
    from fasterseg.cache import write_atomic
    from fasterseg.errors import OutputExistsError, UsageError
    from fasterseg.registry import resolve

    if readme is not None:
        if records or output or accuracy:
            raise UsageError("--readme takes its records from the file; give nothing else")
        note(f"{readme}: {refresh(readme)} tables written from their records")
        return
    if not records or output is None:
        raise UsageError("give records and the page to write: report RECORD... -o report.html")
    if output.exists() and not overwrite:
        raise OutputExistsError(f"{output} exists; --overwrite replaces it")
    loaded = [BenchRecord.load(path) for path in records]
    scores = [Score.load(path) for path in accuracy or ()]
    page = resolve(REPORTS, "report", "html")(loaded, scores)
    write_atomic(output, page.encode())
    print(output)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="Record (JSON) to compare with.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Record of the same device.")],
    max_regression: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="PERCENT",
            help="Exit code 6 if a call of B takes longer than this allows.",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="wall|cpu",
            help="What --max-regression judges: the median of host_to_labels, or that of its CPU "
            "time (--cpu-time), which holds on a shared machine.",
        ),
    ] = "wall",
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Ratios of two records, B over A: below 1, B is faster.

    Quoted is the ratio of medians; the spread is that of the ratios of minimum, median and 90th
    percentile. Records of different devices, protocols or precisions are refused.
    """
    from fasterseg.bench.comparison import BASES, check_regression
    from fasterseg.bench.comparison import compare as compare_records
    from fasterseg.bench.records import BenchRecord
    from fasterseg.cli.bench_text import cpu_table, ratio_table
    from fasterseg.errors import UsageError

    if by not in BASES:
        raise UsageError(f"--by {by} is not one of {', '.join(BASES)}")
    old, new = BenchRecord.load(before), BenchRecord.load(after)
    ratios = compare_records(old, new)
    print(f"A: {old.model}, {old.commit}, {old.created}")
    print(f"B: {new.model}, {new.commit}, {new.created}")
    print("\n".join([*ratio_table(ratios), *cpu_table(ratios)]))
    if max_regression is not None:
        check_regression(ratios, max_regression, by)
