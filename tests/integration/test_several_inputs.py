"""Two rendered streets in one process, the program itself: class maps as each gets them alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.stream.render import render_clip
from fasterseg.types import Size
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

LIMIT_S = 120.0
COUNTS = {"north": 20, "south": 13}


def infer(folder: Path, *arguments: str) -> str:
    """Run `fasterseg-infer` in a folder; what it told."""
    environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "fasterseg", "infer", *arguments, "--format", "classmap"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def maps_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_streams_on_one_engine_get_the_class_maps_they_get_alone(
    tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    for seed, (name, count) in enumerate(COUNTS.items()):
        render_clip(tmp_path / f"{name}.mp4", seed, count, Size(96, 128), 15.0)
    options = ("--engine", engine, "--threads", "1", "--size", "96x128")
    told = infer(tmp_path, "north.mp4", "both", "--also", "south.mp4", *options, "--json=f.json")
    assert told.count("engine: ") == 1
    facts = json.loads((tmp_path / "f.json").read_text())
    assert {name: one["frames"] for name, one in facts["streams"].items()} == COUNTS
    for name, count in COUNTS.items():
        infer(tmp_path, f"{name}.mp4", f"{name}.mkv", *options)
        together, alone = (
            maps_of(tmp_path / "both" / f"{name}.mkv"),
            maps_of(tmp_path / f"{name}.mkv"),
        )
        assert len(together) == len(alone) == count
        assert len({mask.tobytes() for mask in alone}) > 1
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)
