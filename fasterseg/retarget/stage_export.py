"""The stages `export` and `report`: what a run hands over, and what it says about itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from fasterseg.deploy.export import export_onnx
from fasterseg.deploy.recipe import artefact_name
from fasterseg.errors import PerformanceError
from fasterseg.graph.emit import EmitOptions
from fasterseg.registry import resolve
from fasterseg.retarget.stage_context import SEARCH, TRAINED, Run, Stage, digest_of, read_json
from fasterseg.retarget.stage_train import FOLDER, arms_of
from fasterseg.runtime.model import resolve_model
from fasterseg.search.corecord import UNMOVED

EXPORTED: Final = "export"
REPORTED: Final = "report.html"

PAGES: Final = {"page": "fasterseg.retarget.report:write_report"}
"""What needs the extra `report`; resolved, so that its absence is told with the remedy."""


def check_moved(run: Run) -> None:
    """Refuse to hand over what a search that did not move has left.

    Raises:
        PerformanceError: the mean entropy of its logits is above `UNMOVED`.
    """
    entropy = read_json(run.path(SEARCH)).get("entropy")
    if entropy is not None and entropy > UNMOVED and not run.force:
        raise PerformanceError(
            f"the logits of this search have a mean entropy of {entropy:.3f} (1 is undecided): it "
            "chose at random, and its network is not exported. Search for longer, or with a "
            "higher arch_lr or lower temperature: --redo cosearch. Export all the same: --force"
        )


def _settings(run: Run) -> dict[str, Any]:
    return {"size": str(run.size), "export": asdict(run.settings.export)}


def _sources(run: Run) -> dict[str, str]:
    return {TRAINED: digest_of(run.path(TRAINED))}


def _export(run: Run) -> bool:
    check_moved(run)
    if not run.group.leads:
        return True
    first = run.settings.train.seeds[0]
    for arm in arms_of(run):
        if arm.how != "searched" or arm.seed != first:
            continue
        model = resolve_model(str(run.path(FOLDER) / arm.folder))
        for precision in run.settings.export.precisions:
            options = EmitOptions(precision=precision)
            target = run.path(EXPORTED) / artefact_name(arm.name, run.size, options)
            export_onnx(model, run.size, options, target, overwrite=True)
            run.tell(f"  {target}")
    return True


def _report_sources(run: Run) -> dict[str, str]:
    """The keys of everything that has been done."""
    # Imported late: `stages` names this module.
    from fasterseg.retarget.stages import Records

    stages = Records.load(run.folder).stages
    done = {
        name: f"{record['key']} {record['finished']}"
        for name, record in stages.items()
        if name != "report"
    }
    return {name: state for name, state in done.items() if not state.endswith("None")}


def _report(run: Run) -> bool:
    if run.group.leads:
        run.tell(f"  {resolve(PAGES, 'report', 'page')(run.folder)}")
    return True


EXPORT: Final = Stage(_settings, _sources, _export, (EXPORTED,))
REPORT: Final = Stage(lambda _: {}, _report_sources, _report, (REPORTED,), always=True)
