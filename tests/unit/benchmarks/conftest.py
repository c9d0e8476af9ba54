from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.graph.weights import seeded_weights
from fasterseg.labels import CAMVID
from fasterseg.runtime import model as models
from fasterseg.runtime.model import Model, write_model
from fasterseg.search.settings import AugmentSettings, LossSettings, TrainSettings
from fasterseg.types import Size
from tests.shared import ROOT
from tests.tiny_data import write_camvid

SIZE = Size(64, 96)
NAME = "fasterseg-camvid"

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def scripts() -> Iterator[None]:
    """The folder of the scripts on the path, as when one of them is run."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="session")
def shipping(scripts: None) -> Any:
    return importlib.import_module("shipping")


@pytest.fixture(scope="session")
def camvid_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture
def shop(
    shipping: Any, tiny_genotype: Genotype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A zoo with the architecture, nothing shipped yet."""
    return open_shop(shipping, tiny_genotype, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def template(
    shipping: Any,
    tiny_genotype: Genotype,
    camvid_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a run and a zoo that it was shipped to; nobody writes into it."""
    folder = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        shop = open_shop(shipping, tiny_genotype, folder, patch)
        ship_model = importlib.import_module("ship_model")
        ship_model.ship(shop, write_run(folder / "run0", tiny_genotype), camvid_root)
    return folder


@pytest.fixture
def shipped(
    shipping: Any,
    tiny_genotype: Genotype,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """A shop where a model ships."""
    shop = open_shop(shipping, tiny_genotype, tmp_path, monkeypatch)
    shutil.copytree(template / "zoo", shop.zoo, dirs_exist_ok=True)
    return shop


def open_shop(
    shipping: Any, tiny_genotype: Genotype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    zoo = folder / "zoo"
    zoo.mkdir()
    (zoo / f"{NAME}.json").write_text(json.dumps(tiny_genotype.to_json()))
    entry: dict[str, Any] = {"genotype": f"{NAME}.json", "labels": "camvid"}
    entry |= {"train_size": "64x96", "weights": None, "seed": 0, "licence": "", "about": ""}
    (zoo / "index.json").write_text(json.dumps({"schema": 1, "models": {NAME: entry}}))
    monkeypatch.setattr(models, "ZOO", zoo)
    monkeypatch.setenv("FASTERSEG_CACHE", str(folder / "cache"))
    return shipping.Shop(work=folder / "work", size=SIZE)


def tiny_settings() -> TrainSettings:
    return TrainSettings(
        dataset="camvid",
        student=NAME,
        images=8,
        crop="64x64",
        batch=2,
        precision="fp32",
        evaluate_frames=1,
        log_images=0,
        augment=AugmentSettings(candidates=1),
        loss=LossSettings(aux=0.0),
    )


@pytest.fixture
def make_run(tiny_genotype: Genotype, tmp_path: Path) -> MakeRun:
    """Writes what a finished training leaves."""

    return lambda seed=0: write_run(tmp_path / f"run{seed}", tiny_genotype, seed)


def write_run(folder: Path, genotype: Genotype, seed: int = 0) -> Path:
    model = Model("run", genotype, CAMVID, SIZE, None, licence="l", about="a")
    weights = seeded_weights(plan(genotype, SIZE), seed)
    facts = {"settings": tiny_settings().to_json(), "step": 4, "images": 8, "seconds": 60.0}
    write_model(folder, model, weights, dtype=np.float16, training=facts)
    score = {"miou": 20.0, "pixel_accuracy": 50.0, "per_class_iou": [10.0] * 11}
    log = [
        {"step": 2, "images": 4, "seconds": 1.0, "total": 2.0, "head": 2.0, "lr": 0.1},
        {"step": 2, "note": "settings changed: images: 6 -> 8"},
        {"step": 4, "images": 8, "val": score},
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in log)
    (folder / "log.jsonl").write_text(lines + '{"step": 5, "im')
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
