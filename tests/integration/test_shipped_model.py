"""The model in the package: whole, described truly, as accurate as its card says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from fasterseg.bench.accuracy import score
from fasterseg.datasets import DATASETS, spaced
from fasterseg.runtime.model import DEFAULT_MODEL, ZOO, resolve_model
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.streets import images
from fasterseg.types import Size
from tests.shared import ROOT, shared

pytestmark = pytest.mark.onnx

SIZE = Size(360, 480)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def record() -> dict[str, object]:
    facts: dict[str, object] = json.loads((ZOO / f"{DEFAULT_MODEL}.record.json").read_text())
    return facts


def test_weights_are_those_of_the_index_and_the_record() -> None:
    model = resolve_model(DEFAULT_MODEL)
    assert model.weights is not None
    data = model.weights.read_bytes()
    index = json.loads((ZOO / "index.json").read_text())["models"][DEFAULT_MODEL]
    assert index["sha256"] == record()["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(data) <= 8_000_000


def test_the_card_says_what_the_record_says() -> None:
    command = [sys.executable, "benchmarks/ship_model.py", "--check"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_record_is_of_this_model() -> None:
    tests = record()["test"]
    assert isinstance(tests, list)
    assert {row["source_sha256"] for row in tests} == {resolve_model(DEFAULT_MODEL).source_sha256}
    assert {row["precision"] for row in tests} == {"fp32", "fp16", "int8"}
    assert {row["images"] for row in tests} == {233}


def test_rendered_streets_are_mostly_understood() -> None:
    # Plumbing, not accuracy: with colours swapped or a wrong mean this falls apart.
    engine = open_engine(EngineRequest(device="cpu", size=SIZE), SIZE, print)
    right = total = 0
    for image, truth in images(seed=991, count=4, size=SIZE):
        labels = engine.run(image[None])[0]
        right += int((labels == truth).sum())
        total += truth.size
    assert right / total > 0.6


def test_fp16_keeps_the_labels_of_fp32() -> None:
    engines = [
        open_engine(EngineRequest(device="cpu", size=SIZE, precision=precision), SIZE, print)
        for precision in ("fp32", "fp16")
    ]
    equal = total = 0
    for image, _ in images(seed=992, count=3, size=SIZE):
        first, second = (engine.run(image[None]).copy() for engine in engines)
        equal += int((first == second).sum())
        total += first.size
    assert equal / total >= 0.999


def test_validation_frames_score_as_recorded() -> None:
    root = shared("data/camvid")
    dataset = DATASETS["camvid"]
    pairs = spaced(dataset.pairs(root, "val"), 12)
    engine = open_engine(EngineRequest(device="cpu", size=SIZE), SIZE, print)
    accuracy = score(engine, dataset, "val", pairs)
    rows = record()["val"]
    assert isinstance(rows, list)
    recorded = next(row for row in rows if row["precision"] == "fp32")
    # A dozen of the 101 frames of one short sequence: near the whole, not equal to it.
    assert 100 * accuracy.matrix.pixel_accuracy == pytest.approx(
        recorded["pixel_accuracy"], abs=1.5
    )
