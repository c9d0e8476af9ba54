"""Every stage of both methods in miniature, on rendered streets and the nominal device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fasterseg.cache import write_atomic
from fasterseg.datasets import Split, dataset
from fasterseg.datasets.rendered import write_streets
from fasterseg.retarget.settings import METHOD_NAMES, Method, RetargetSettings, load_run
from fasterseg.retarget.stage_context import GENOTYPE, TABLE, Hooks, Run
from fasterseg.retarget.stage_export import REPORTED
from fasterseg.retarget.stages import chosen_stages, run_stages

if TYPE_CHECKING:
    from fasterseg.search.distributed import Group

RECIPE: Final = "smoke"
PICTURES: Final[Mapping[Split, int]] = {"train": 20, "val": 2, "test": 2}
STREETS_SEED: Final = 7


def smoke(folder: Path, device: str, group: Group, hooks: Hooks, seed: int | None = None) -> bool:
    """Run both methods in `folder/evolve` and `folder/fasterseg`; False where asked to stop.

    Genotype, table and report of method evolve are copied to `folder` itself.

    Args:
        folder: of everything, the rendered pictures included.
        device: what trains: "cpu" or "cuda".
        group: the processes that share the work.
        hooks: whom to tell.
        seed: of everything drawn but the pictures; None: the recipe's.
    """
    for method in METHOD_NAMES:
        run = _run(folder, method, device, group, hooks, seed)
        run.tell(f"method {method}")
        if not run_stages(run, chosen_stages(method, (), ())):
            return False
    if group.leads:
        for name in (GENOTYPE, TABLE, REPORTED):
            write_atomic(folder / name, (folder / "evolve" / name).read_bytes())
    return True


def settings_for(method: Method, description: Path, seed: int | None = None) -> RetargetSettings:
    """The recipe of the miniature for one method.

    Args:
        method: which.
        description: the `.toml` of the pictures.
        seed: of everything drawn; None: the recipe's.
    """
    changes: dict[str, Any] = {"method": method, "dataset": str(description)}
    if seed is not None:
        changes["seed"] = seed
    if method == "fasterseg":
        first = load_run(RECIPE, {"dataset": str(description)}).targets_ms[:1]
        changes["targets_ms"] = list(first)
        space = asdict(load_run(RECIPE, {"dataset": str(description)}).space)
        # It searches neither stem nor head.
        changes["space"] = {**space, "stem_widths": (6,), "head_widths": (6,)}
    return load_run(RECIPE, changes)


def _run(
    folder: Path, method: Method, device: str, group: Group, hooks: Hooks, seed: int | None
) -> Run:
    description = folder / "data/streets.toml"
    size = settings_for(method, description, seed).frame_size
    if group.leads:
        write_streets(description.parent, PICTURES, size, STREETS_SEED)
    group.share(None)
    spec = dataset(str(description))
    root = spec.folder(None)
    # A search of a few steps decides nothing, and is exported all the same.
    settings = settings_for(method, description, seed)
    return Run(folder / method, settings, spec, root, device, group, hooks, force=True)
