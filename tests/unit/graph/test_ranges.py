"""The ranges file survives the trip, is tied to its weights, and damaged ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.errors import WeightsError
from fasterseg.graph.ranges import Ranges, load_ranges, save_ranges

RANGES = Ranges(
    values={
        "input": (-2.117904, 2.64),
        "stem.0/1.relu": (0.0, 22.60171),
        "dead/1.relu": (0.0, 0.0),
    },
    weights_sha256="ab" * 32,
    method="minmax",
    frames=64,
    frames_sha256="cd" * 32,
    size="360x480",
    source="CamVid train",
    fasterseg="0.1.0",
)


def test_ranges_survive_the_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.ranges.json"
    save_ranges(path, RANGES)
    assert load_ranges(path) == RANGES
    assert json.loads(path.read_text())["values"]["input"] == [-2.117904, 2.64]


def test_the_hash_is_that_of_the_values_alone() -> None:
    assert replace(RANGES, source="elsewhere", frames=1).sha256 == RANGES.sha256
    moved = {**RANGES.values, "input": (-2.117904, 2.7)}
    assert replace(RANGES, values=moved).sha256 != RANGES.sha256


def test_ranges_of_other_weights_are_refused_with_the_command_that_measures() -> None:
    RANGES.check(["input"], "ab" * 32)
    with pytest.raises(WeightsError, match=r"belong to weights abab.*fasterseg calibrate"):
        RANGES.check(["input"], "ef" * 32)


def test_ranges_that_lack_a_value_name_it() -> None:
    with pytest.raises(WeightsError, match=r"lack 1 values: head/2\.relu.*fasterseg calibrate"):
        RANGES.check(["input", "head/2.relu"], "ab" * 32)


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(RANGES.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        ("[]", "fasterseg calibrate"),
        ("{}", "'values' is missing"),
        (edited(schema=9), "Upgrade"),
        (edited(frames="many"), "frames"),
        (edited(values={"input": [1.0]}), "2 values"),
        (edited(values={"input": [1.0, 2.0]}), "cannot be"),
        (edited(values={"input": [0.0, -1.0]}), "cannot be"),
        (edited(values={"input": [0.0, float("inf")]}), "cannot be"),
        (edited(values={"input": [float("nan"), 1.0]}), "cannot be"),
    ],
)
def test_files_that_hold_no_ranges_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.ranges.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_ranges(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.ranges\.json.*fasterseg calibrate"):
        load_ranges(tmp_path / "none.ranges.json")
