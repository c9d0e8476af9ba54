"""One self-contained HTML page of a run: no script, nothing loaded from elsewhere, no pictures."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import jinja2

from fasterseg.bench.scopes import BUSY_LOAD_PER_CORE
from fasterseg.bench.tables import TableFile
from fasterseg.cache import write_atomic
from fasterseg.errors import ConfigError
from fasterseg.retarget.report_device import (
    device_section,
    exports_section,
    fit_section,
    stages_section,
)
from fasterseg.retarget.report_parts import Section
from fasterseg.retarget.report_search import (
    candidates_section,
    chance_section,
    choices_section,
    chosen_section,
    tradeoff_section,
)
from fasterseg.retarget.report_training import (
    courses_section,
    logits_section,
    trained_section,
)
from fasterseg.retarget.run_files import RunFiles, read_run
from fasterseg.search.corecord import did_not_move

TEMPLATE: Final = "report.html.j2"
PAGE: Final = "report.html"

UNSTEADY: Final = 0.05
"""Mean difference between two measurements of the same networks above which a machine is said to
be unsteady."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, from whatever the run has left there so far.

    Args:
        folder: of a run.

    Returns:
        The page.

    Raises:
        UsageError: the folder is not that of a run.
        ConfigError: a file of the run is damaged, or files do not belong together.
        OutputError: the page cannot be written.
    """
    path = folder / PAGE
    write_atomic(path, page(folder).encode())
    return path


def page(folder: Path) -> str:
    """The page of a run as text; see `write_report`."""
    run = read_run(folder)
    _check_readable(run)
    text = resources.files("fasterseg.retarget").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text).render(
        title=folder.resolve().name,
        facts=_facts(run),
        warnings=list(_warnings(run)),
        sections=_sections(run),
    )


def _sections(run: RunFiles) -> list[Section]:
    """In the order in which they are read: what was found first."""
    by_logits = run.settings.get("method") == "fasterseg"
    search = (
        [logits_section(run)]
        if by_logits
        else [tradeoff_section(run), chance_section(run), choices_section(run)]
    )
    return [
        chosen_section(run),
        *search,
        *([candidates_section(run)] if run.measured or not by_logits else []),
        trained_section(run),
        fit_section(run),
        courses_section(run),
        stages_section(run),
        device_section(run),
        exports_section(run),
    ]


def _facts(run: RunFiles) -> dict[str, str]:
    """What the run was asked to do."""
    settings = run.settings
    facts = {name: settings.get(name) for name in ("dataset", "method", "size", "seed")}
    targets = [f"{target['target_ms']:g}" for target in run.targets] or [
        f"{ms:g}" for ms in settings.get("targets_ms", ())
    ]
    facts["targets, ms"] = ", ".join(targets) or None
    return {name: str(value) for name, value in facts.items() if value is not None}


def _warnings(run: RunFiles) -> Iterator[str]:
    """Reasons to doubt what the page says."""
    if run.is_nominal:
        yield (
            "The latency table is a formula: nothing was measured, and its milliseconds hold for "
            "no machine."
        )
    elif run.table is not None:
        yield from _unsteady(run.table)
    for record in run.epochs[-1:]:
        if warning := did_not_move(record):
            yield warning
    for target in run.targets:
        if target["measured_ms"] > target["target_ms"]:
            yield (
                f"The network chosen for {target['target_ms']:g} ms takes "
                f"{target['measured_ms']:.3f} ms."
            )
        if note := target.get("evolve", {}).get("note"):
            yield f"At {target['target_ms']:g} ms: {note}"


def _unsteady(file: TableFile) -> Iterator[str]:
    """What speaks against the table."""
    report = file.report or {}
    if refusal := report.get("refusal"):
        yield f"The fit of the table is not kept: {refusal}."
    difference = report.get("repeat", {}).get("mean", 0.0)
    if difference > UNSTEADY:
        yield (
            f"The machine was unsteady: two measurements of the same networks differ by "
            f"{100 * difference:.1f} % on average."
        )
    cores = (file.device.details.get("cpu") or {}).get("cores_usable") or 1
    loads = [run.get("load_average") or 0.0 for run in file.runs]
    if loads and max(loads) > BUSY_LOAD_PER_CORE * cores:
        yield (
            f"Other programs ran while the table was measured: load {max(loads):.2f} on {cores} "
            "cores."
        )


def _check_readable(run: RunFiles) -> None:
    """Refuse a folder whose files do not belong together before anything is drawn.

    Raises:
        ConfigError: a chosen network is missing, or of another digest than the search says.
    """
    for target in run.targets:
        genotype = run.genotype(target["file"])
        if genotype is None or genotype.digest() != target["chosen"]:
            raise ConfigError(
                f"{run.folder / target['file']} is not the network that search.json names; redo "
                "the stage search, see --redo"
            )
