"""`fasterseg calibrate` as users type it, and int8 afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import onnx
import pytest

from fasterseg.arch.plan import plan
from fasterseg.graph.ranges import load_ranges
from fasterseg.labels import CAMVID as CAMVID_LABELS
from fasterseg.runtime.model import Model, write_model
from fasterseg.types import Size
from tests.parity import random_genotype, street_like
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"
SIZE = Size(64, 96)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures whose brightness grows from file to file."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(5):
        dimmed = street_like(SIZE, 3)[0] // (5 - index)
        cv2.imwrite(str(folder / f"{index}.png"), dimmed)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder without ranges."""
    model = Model("own", random_genotype(5, num_classes=11), CAMVID_LABELS, SIZE, None)
    write_model(tmp_path / "own", model, model.load_weights(plan(model.genotype, SIZE)))
    return tmp_path / "own"


def test_a_trained_models_folder_gets_int8_in_one_command(
    run: Run, folder: Path, pictures: Path
) -> None:
    asked = ("infer", pictures, "null:", "--model", folder, "--precision", "int8", "-q")
    refused = run(*asked)
    assert refused.code == 4
    assert f"fasterseg calibrate {folder}/model.json --images PATH" in refused.stderr
    outcome = run("calibrate", folder, "--images", pictures)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == str(folder / "ranges.json")
    assert "--precision int8" in outcome.stderr
    done = run(*asked, "--json", "-")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["engine"]["precision"] == "int8"
    assert run("verify", "onnxruntime", "onnxruntime", "--model", folder, "--size", "64x96",
               "--precision", "int8", "--limit", "1").code == 0  # fmt: skip


def test_frames_are_evenly_spaced_over_the_source(run: Run, folder: Path, pictures: Path) -> None:
    assert run("calibrate", folder, "--images", pictures, "--frames", "2").code == 0
    few = load_ranges(folder / "ranges.json")
    assert (few.frames, few.source) == (2, "pictures")
    again = run("calibrate", folder, "--images", pictures, "--overwrite")
    assert again.code == 0, again.stderr
    everything = load_ranges(folder / "ranges.json")
    assert everything.frames == 5
    # The brightest picture is the last one; every third from the first leaves it out.
    assert everything.values["input"][1] > few.values["input"][1]


def test_a_zoo_models_own_ranges_go_to_a_file_and_into_an_export(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    refused = run("calibrate", CAMVID, "--images", pictures)
    assert refused.code == 2
    assert "-o FILE" in refused.stderr
    outcome = run("calibrate", CAMVID, "--images", pictures, "--size", "64x96", "-o", "own.json")
    assert outcome.code == 0, outcome.stderr
    assert "--ranges own.json" in outcome.stderr
    arguments = ("export", CAMVID, "--size", "64x96", "--precision", "int8")
    assert run(*arguments, "-o", "zoo.onnx").code == 0
    assert run(*arguments, "--ranges", "own.json", "-o", "own.onnx").code == 0
    hashes = {
        json.loads(run("info", name, "--json").stdout)["ranges_sha256"]
        for name in ("zoo.onnx", "own.onnx")
    }
    assert hashes >= {load_ranges(tmp_path / "own.json").sha256}
    assert len(hashes) == 2
    onnx.checker.check_model("own.onnx", full_check=True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing", "--images", "pictures"], 2, "fasterseg-camvid"),
        (["own", "--images", "missing"], 3, "missing"),
        (["own"], 2, "--images"),
        (["own", "--images", "pictures", "--frames", "0"], 2, "frames"),
        (["own", "--images", "pictures", "--size", "32x32"], 2, "64x64"),
    ],
)
def test_mistakes_end_with_the_right_code_and_the_remedy(
    run: Run, folder: Path, pictures: Path, arguments: list[str], code: int, message: str
) -> None:
    outcome = run("calibrate", *arguments)
    assert outcome.code == code, outcome.stderr
    assert message in outcome.stderr
    assert not (folder / "ranges.json").exists()


def test_ranges_that_are_there_are_kept_unless_told(run: Run, folder: Path, pictures: Path) -> None:
    (folder / "ranges.json").write_text("precious")
    outcome = run("calibrate", folder, "--images", pictures)
    assert outcome.code == 2
    assert "--overwrite" in outcome.stderr
    assert (folder / "ranges.json").read_text() == "precious"


def test_ranges_of_other_weights_are_refused(run: Run, folder: Path, pictures: Path) -> None:
    assert run("calibrate", folder, "--images", pictures, "-o", "own.json").code == 0
    outcome = run("export", CAMVID, "--precision", "int8", "--ranges", "own.json", "-o", "x.onnx")
    assert outcome.code == 4
    assert "belong to weights" in outcome.stderr
    assert not Path("x.onnx").exists()
