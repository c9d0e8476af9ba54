"""What tests share: the reference folder that may be absent, goldens and zoo genotypes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fasterseg.arch.genotype import Genotype

ROOT = Path(__file__).resolve().parents[1]


def shared(path: str) -> Path:
    """A file of the reference folder; skips the test where it is absent.

    The folder is `$FASTERSEG_SHARED`, else `shared` beside the repository.
    """
    folder = Path(os.environ.get("FASTERSEG_SHARED") or ROOT.parent / "shared")
    file = folder / path
    if not file.exists():
        pytest.skip(f"{path} is not in the reference folder; set FASTERSEG_SHARED to it")
    return file


def golden(name: str) -> Any:
    """A JSON file of tests/golden."""
    return json.loads((ROOT / "tests" / "golden" / name).read_text(encoding="utf-8"))


def zoo_genotype(name: str) -> Genotype:
    """A genotype of the zoo."""
    path = ROOT / "fasterseg" / "zoo" / f"{name}.json"
    return Genotype.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
