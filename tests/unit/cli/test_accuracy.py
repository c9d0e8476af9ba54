"""`fasterseg-bench accuracy` and `submission`, as users call them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.labels import CAMVID
from fasterseg.metrics import ConfusionMatrix
from tests.shared import shared
from tests.tiny_data import write_camvid
from tests.unit.bench.test_submission import SPEC, official, official_scores
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

SMALL = ("--size", "64x96", "--threads", "1")

OWN = """
name = "mine"
size = "80x112"
root = "camvid"
classes = {classes}

[val]
list = "val.txt"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small CamVid."""
    return write_camvid(tmp_path / "camvid")


def scored(run: Run, root: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of `accuracy` on the small CamVid."""
    outcome = run("bench", "accuracy", "--root", root, *SMALL, *arguments, "--json", "-")
    assert outcome.code == 0, outcome.stderr
    facts: dict[str, Any] = json.loads(outcome.stdout)
    return facts


def test_the_json_holds_scores_that_follow_from_its_matrix(run: Run, root: Path) -> None:
    facts = scored(run, root, "--split", "train")
    matrix = ConfusionMatrix.from_counts(np.array(facts["confusion"]))
    assert facts["classes"] == list(CAMVID.classes)
    assert facts["images"] == 5
    assert facts["miou"] == pytest.approx(100 * matrix.miou, abs=1e-3)
    assert facts["pixel_accuracy"] == pytest.approx(100 * matrix.pixel_accuracy, abs=1e-3)
    for name, value in zip(facts["classes"], matrix.per_class_iou, strict=True):
        shown = facts["per_class_iou"][name]
        assert np.isnan(value) if shown is None else shown == pytest.approx(100 * value, abs=1e-3)
    low, high = facts["miou_interval_95"]
    assert low <= facts["miou"] <= high


def test_a_row_of_the_matrix_is_a_line_of_the_json(run: Run, root: Path, tmp_path: Path) -> None:
    outcome = run("bench", "accuracy", "--root", root, *SMALL, "--json", "a.json")
    assert outcome.code == 0, outcome.stderr
    lines = (tmp_path / "a.json").read_text().splitlines()
    row = next(n for n, line in enumerate(lines) if '"confusion": [' in line) + 1
    facts = json.loads((tmp_path / "a.json").read_text())
    for line, counts in zip(lines[row : row + 11], facts["confusion"], strict=True):
        assert json.loads(line.strip().rstrip(",")) == counts
    assert "mIoU" in outcome.stdout
    assert "class accuracy" in outcome.stdout


def test_an_engine_file_scores_as_its_model_does(run: Run, root: Path) -> None:
    assert run("export", "fasterseg-camvid", "--size", "64x96", "-o", "a.onnx").code == 0
    outcome = run("bench", "accuracy", "--root", root, "--engine", "a.onnx", "--json", "-")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["confusion"] == scored(run, root)["confusion"]


def test_a_class_can_be_left_out_of_a_second_mean(run: Run, root: Path) -> None:
    facts = scored(run, root, "--exclude", "Bicyclist", "--exclude", "Sky")
    others = [
        value
        for name, value in facts["per_class_iou"].items()
        if value is not None and name not in ("Bicyclist", "Sky")
    ]
    assert facts["miou_without"]["classes"] == ["Bicyclist", "Sky"]
    assert facts["miou_without"]["miou"] == pytest.approx(np.mean(others), abs=2e-3)
    outcome = run("bench", "accuracy", "--root", root, *SMALL, "--exclude", "Sky")
    assert "without Sky" in outcome.stdout
    outcome = run("bench", "accuracy", "--root", root, "--exclude", "sky")
    assert outcome.code == 2
    assert "Did you mean 'Sky'" in outcome.stderr
    assert "engine:" not in outcome.stderr


@pytest.mark.torch
def test_flip_is_an_option_of_engines_with_logits(run: Run, root: Path) -> None:
    pytest.importorskip("torch")
    facts = scored(run, root, "--engine", "torch", "--flip")
    assert facts["flip"] is True
    assert "mirrored" in facts["protocol"]
    assert facts["confusion"] != scored(run, root, "--engine", "torch")["confusion"]
    outcome = run("bench", "accuracy", "--root", root, *SMALL, "--flip")
    assert outcome.code == 2
    assert "--engine torch" in outcome.stderr


def test_the_confusion_matrix_is_drawn(run: Run, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = run("bench", "accuracy", "--root", root, *SMALL, "--confusion", "out/matrix.png")
    assert outcome.code == 0, outcome.stderr
    image = cv2.imread(str(tmp_path / "out/matrix.png"))
    assert image is not None
    assert min(image.shape[:2]) > 600


def test_without_matplotlib_nothing_is_begun(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fasterseg.plots", raising=False)
    outcome = run("bench", "accuracy", "--root", "nowhere", "--confusion", "matrix.png")
    assert outcome.code == 4
    assert "pip install 'fasterseg[report]'" in outcome.stderr
    assert "nowhere" not in outcome.stderr


def test_rendered_streets_get_no_score(run: Run) -> None:
    outcome = run("bench", "accuracy", "--dataset", "streets")
    assert outcome.code == 2
    assert "no accuracy" in outcome.stderr
    assert "engine:" not in outcome.stderr


def test_an_own_data_set_brings_its_folder(run: Run, root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN.format(classes=json.dumps(CAMVID.classes)))
    outcome = run("bench", "accuracy", "--dataset", "mine.toml", *SMALL, "--json", "-")
    assert outcome.code == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert facts["dataset"] == "mine"
    assert facts["confusion"] == scored(run, root)["confusion"]


def test_a_data_set_with_other_classes_is_refused(run: Run, root: Path, tmp_path: Path) -> None:
    names = ["ground", *CAMVID.classes[1:]]
    (tmp_path / "mine.toml").write_text(OWN.format(classes=json.dumps(names)))
    outcome = run("bench", "accuracy", "--dataset", "mine.toml", *SMALL)
    assert outcome.code == 2
    assert "class 0 of fasterseg-camvid is 'Sky', that of data set mine 'ground'" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--root"),
        (("--root", "camvid", "--split", "all"), "train, val, test"),
        (("--root", "camvid", "--fit", "crop"), "stretch, letterbox"),
        (("--root", "camvid", "--confusion", "matrix.jpg"), "ends in .png"),
        (("--root", "camvid", "--dataset", "camvidd"), "Did you mean 'camvid'"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(
    run: Run, root: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run("bench", "accuracy", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "engine:" not in outcome.stderr


def test_missing_labels_are_told_before_an_engine_is_built(run: Run, root: Path) -> None:
    (root / "valannot" / "1.png").unlink()
    outcome = run("bench", "accuracy", "--root", root, *SMALL)
    assert outcome.code == 3
    assert "1 of 2 label maps are missing" in outcome.stderr
    assert "engine:" not in outcome.stderr


def test_a_submission_scores_at_the_server_as_it_does_here(run: Run, tmp_path: Path) -> None:
    official()
    root = shared("data/cityscapes-mini")
    network = ("--model", "fasterseg-student", "--size", "128x256", "--threads", "1")
    common = ("--root", root, "--split", "val", *network, "--json", "-")
    made = run("bench", "submission", "results", *common)
    assert made.code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert (facts["images"], facts["trained"]) == (1, False)
    assert (tmp_path / "results.zip").is_file()
    pairs = SPEC.pairs(root, "val")
    theirs = official_scores(tmp_path / "results", pairs)
    ours = run("bench", "accuracy", "--dataset", "cityscapes", *common)
    assert ours.code == 0, ours.stderr
    scores = json.loads(ours.stdout)
    assert scores["miou"] == pytest.approx(100 * theirs["averageScoreClasses"], abs=6e-4)
    matrix = ConfusionMatrix.from_counts(np.array(scores["confusion"]))
    for name, value in zip(scores["classes"], matrix.per_class_iou, strict=True):
        np.testing.assert_allclose(value, theirs["classScores"][name], atol=1e-6)
    assert matrix.miou > 0


def test_the_default_model_has_no_place_at_the_server(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cityscapes" / "leftImg8bit" / "test" / "bonn"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "bonn_000000_000019_leftImg8bit.png"), np.zeros((8, 8), np.uint8))
    outcome = run("bench", "submission", "results", "--root", "cityscapes", "--size", "64x128")
    assert outcome.code == 2
    assert "the 19 of Cityscapes" in outcome.stderr
    assert not (tmp_path / "results").exists()
