"""`fasterseg-infer --smooth` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasterseg.cli.smoothing import flicker_line
from fasterseg.stream.smoothing import Flicker
from fasterseg.streets import StreetScene
from fasterseg.types import Size
from tests.unit.cli.conftest import Run
from tests.unit.stream.conftest import write_picture, write_video

pytestmark = pytest.mark.onnx
ENGINE = ("--engine", "onnxruntime", "--size", "64x96", "--threads", "1")


def write_drive(path: Path, seed: int) -> Path:
    scene = StreetScene(seed, Size(72, 128), fps=60.0)
    return write_video(path, [scene.frame(index)[0] for index in range(5)])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_drive(tmp_path / "drive.mp4", 0)


def test_the_flicker_without_and_with_smoothing_is_told(run: Run, clip: Path) -> None:
    outcome = run("infer", str(clip), "null:", "--smooth", *ENGINE, "--json", "facts.json")
    assert outcome.code == 0, outcome.stderr
    flicker = json.loads(Path("facts.json").read_text())["flicker"]
    assert sorted(flicker) == ["compared", "with", "without"]
    assert flicker["with"] <= flicker["without"]
    told = f"flicker {flicker['without']:.2%} without smoothing, {flicker['with']:.2%} with it"
    assert told in outcome.stderr


def test_nothing_is_told_where_nothing_is_smoothed(run: Run, clip: Path) -> None:
    outcome = run("infer", str(clip), "null:", *ENGINE, "--json", "facts.json")
    assert outcome.code == 0
    assert "flicker" not in outcome.stderr
    assert "flicker" not in json.loads(Path("facts.json").read_text())


def test_one_picture_is_refused_before_an_engine_is_opened(run: Run, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "street.png", StreetScene(0, Size(72, 128)).frame(0)[0])
    outcome = run("infer", str(picture), "--smooth", "--engine", "nothing.onnx")
    assert outcome.code == 2
    assert "street.png is one picture" in outcome.stderr
    assert "leave --smooth (smooth=True) out" in outcome.stderr


def test_pictures_of_a_folder_are_taken_for_a_video_and_that_is_said(
    run: Run, tmp_path: Path
) -> None:
    scene = StreetScene(0, Size(72, 128))
    for index in range(4):
        write_picture(tmp_path / f"frames/{index}.png", scene.frame(index)[0])
    outcome = run("infer", "frames", "maps", "--format", "classmap", "--smooth", *ENGINE)
    assert outcome.code == 0
    assert "takes the pictures of frames for frames of a video" in outcome.stderr
    assert len(list(Path("maps").iterdir())) == 4


def test_several_inputs_have_a_flicker_each(run: Run, clip: Path, tmp_path: Path) -> None:
    other = write_drive(tmp_path / "other.mp4", 1)
    arguments = (str(clip), "null:", "--also", str(other), "--smooth", *ENGINE)
    outcome = run("infer", *arguments, "--json", "facts.json")
    assert outcome.code == 0, outcome.stderr
    streams = json.loads(Path("facts.json").read_text())["streams"]
    assert {name: sorted(facts["flicker"]) for name, facts in streams.items()} == {
        "drive": ["compared", "with", "without"],
        "other": ["compared", "with", "without"],
    }
    assert outcome.stderr.count("without smoothing") == 2


def test_rates_are_told_in_percent_or_not_at_all() -> None:
    assert flicker_line(Flicker(1000, 800, 16, 4)) == (
        "flicker 2.00% without smoothing, 0.50% with it: labels that change where the picture "
        "does not (80% of all pixels)"
    )
    assert "nothing to compare" in flicker_line(Flicker())
