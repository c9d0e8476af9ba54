"""Facts about models and engines, gathered once for `info` and `models show`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from fasterseg.runtime.base import EngineSpec
    from fasterseg.runtime.model import Model


def model_facts(model: Model) -> dict[str, Any]:
    """What there is to know about a model, as JSON values."""
    from fasterseg.arch.plan import plan

    network = plan(model.genotype, model.train_size)
    return {
        "name": model.name,
        "about": model.about,
        "origin": model.origin,
        "licence": model.licence,
        "trained": model.trained,
        "train_size": str(model.train_size),
        "parameters": network.parameters,
        "macs": network.macs,
        "classes": list(model.labels.classes),
        "labels": model.labels.name,
        "weights": str(model.weights) if model.weights else f"seeded, seed {model.seed}",
        "ranges": str(model.ranges) if model.ranges else None,
        "sha256": model.source_sha256,
        "genotype": model.genotype.to_json(),
    }


def engine_facts(spec: EngineSpec) -> dict[str, Any]:
    """An engine's spec as JSON values."""
    facts: dict[str, Any] = json.loads(spec.to_json())
    return facts


def read_verdict(path: Path) -> dict[str, Any]:
    """What `fasterseg verify` left beside an engine file.

    Raises:
        EngineMismatchError: it cannot be read, or is something else.
    """
    from fasterseg.config import parse_json
    from fasterseg.errors import EngineMismatchError

    try:
        verdict = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(verdict, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise EngineMismatchError(
            f"{path} is no verdict of a comparison ({error}). Remove it, and compare the engine "
            "again: fasterseg verify"
        ) from error
    return verdict


def plan_facts(path: Path) -> dict[str, Any]:
    """What there is to know about a plan: its sidecar, and what the inspector said of it."""
    from fasterseg.runtime.inspector import read_inspector
    from fasterseg.runtime.plan_files import layers_path, read_facts

    facts: dict[str, Any] = json.loads(read_facts(path).to_json())
    facts = {**facts.pop("spec"), **facts}
    if layers_path(path).is_file():
        facts |= read_inspector(layers_path(path)).to_json()
    return facts


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print facts as aligned lines; architectures as one line per branch."""
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        if key == "genotype":
            _print_genotype(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            print(f"{key:<{width}}  {value:,}")
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            print(f"{key:<{width}}  {len(value)}: {', '.join(value)}")
        elif isinstance(value, Mapping) and "classes" in value:
            classes = value["classes"]
            print(f"{key:<{width}}  {value['name']}, {len(classes)}: {', '.join(classes)}")
        elif value not in (None, "", {}, []):
            print(f"{key:<{width}}  {value}")


def _print_genotype(genotype: Mapping[str, Any] | None) -> None:
    if genotype is None:
        return
    print(f"stem and head widths {genotype['stem_width']}/12, {genotype['head_width']}/12")
    for index, branch in enumerate(genotype["branches"]):
        print(f"branch {index}: {len(branch['ops'])} cells to 1/{branch['strides'][-1]}")
        widths = [*branch["widths"], genotype["head_width"]]
        for cell, (op, rate, out) in enumerate(
            zip(branch["ops"], branch["strides"], widths, strict=True)
        ):
            print(f"  {cell:>2}  1/{rate:<2}  {op:<14}  width {out}/12")
