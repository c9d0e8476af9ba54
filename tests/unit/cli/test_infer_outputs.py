"""The outputs of `fasterseg-infer` as users ask for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from fasterseg.labels import CITYSCAPES
from fasterseg.stream.rle import class_map
from fasterseg.types import Size
from tests.media import write_clip
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

SIZE = Size(72, 128)
ENGINE = ("--size", "64x112", "--threads", "1")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four frames at 25 frames per second."""
    return write_clip(tmp_path / "drive.mp4", 4, SIZE)


def test_every_format_in_one_pass(run: Run, clip: Path, tmp_path: Path) -> None:
    formats = ("--format", "overlay,classmap,rle,stats", "--per-frame", "--legend", "--contours")
    outcome = run("infer", clip, "x", *ENGINE, *formats, "--palette", "distinct")
    assert outcome.code == 0, outcome.stderr
    names = {"x.overlay.mp4", "x.classmap.mkv", "x.rle.jsonl", "x.stats.json"}
    assert {path.name for path in tmp_path.glob("x.*")} == names
    lines = [json.loads(line) for line in (tmp_path / "x.rle.jsonl").read_text().splitlines()]
    with av.open(str(tmp_path / "x.classmap.mkv")) as container:
        maps = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(maps) == 4
    for line, ids in zip(lines, maps, strict=True):
        np.testing.assert_array_equal(class_map(line), ids)
    assert [line["timestamp_s"] for line in lines] == [0.0, 0.04, 0.08, 0.12]
    assert len(json.loads((tmp_path / "x.stats.json").read_text())["per_frame"]) == 4
    with av.open(str(tmp_path / "x.overlay.mp4")) as container:
        assert container.streams.video[0].width > SIZE.width
    for name in names:
        assert f"wrote {name}" in outcome.stderr


def test_raw_ids_through_a_real_pipe(run: Run, clip: Path, tmp_path: Path) -> None:
    assert run("infer", clip, "maps", *ENGINE, "--format", "classmap").code == 0
    command = [sys.executable, "-m", "fasterseg", "infer", str(clip), "-", "--format", "classmap"]
    done = subprocess.run(
        [*command, *ENGINE], capture_output=True, check=False, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"raw gray, 72x128 (HxW)" in done.stderr
    read = np.frombuffer(done.stdout, np.uint8).reshape(4, *SIZE)
    for index, ids in enumerate(read):
        stored = cv2.imread(str(tmp_path / "maps" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(ids, stored)


def test_reader_that_stops_early_is_no_fault(clip: Path, tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m fasterseg infer '{clip}' - --format rle {' '.join(ENGINE)}"
    done = subprocess.run(
        ["sh", "-c", f"{command} -q | head -c 10 >/dev/null"],
        capture_output=True, check=False, timeout=120,
        env={**os.environ, "FASTERSEG_CACHE": str(tmp_path / ".cache")},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"fault of fasterseg" not in done.stderr


def test_cityscapes_submission_ids(run: Run, clip: Path, tmp_path: Path) -> None:
    arguments = ("--format", "classmap", "--labels", "labelid", "--model", "fasterseg-student")
    outcome = run("infer", clip, "m%02d.png", *ENGINE, *arguments, "--limit", "1")
    assert outcome.code == 0, outcome.stderr
    ids = cv2.imread(str(tmp_path / "m00.png"), cv2.IMREAD_UNCHANGED)
    assert ids is not None
    assert set(np.unique(ids).tolist()) <= set(CITYSCAPES.source_ids)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["x.mp4", "--palette", "rainbow"], 2, "distinct"),
        (["x.mp4", "--palette", "cityscapes"], 2, "19 colours"),
        (["x.mp4", "--palette", "none.csv"], 2, "cannot read palette"),
        (["x.mp4", "--labels", "names"], 2, "trainid, labelid"),
        (["x", "--format", "classmap", "--labels", "labelid"], 2, "camvid"),
        (["x", "--format", "classmap", "--legend"], 2, "--legend changes nothing"),
        (["x.mp4", "--indexed"], 2, "--indexed changes nothing"),
        (["-", "--json", "-"], 2, "both want stdout"),
        (["-", "--format", "overlay,rle"], 2, "one format"),
        (["-", "--format", "stats"], 2, "--json -"),
        (["drive.mp4", "--overwrite"], 2, "is the input"),
        (["link.mp4", "--overwrite"], 2, "is the input"),
        (["a" * 300 + ".mp4"], 1, "long"),
        (["x.jsonl/y.mp4"], 1, "not a folder"),
    ],
)
def test_outputs_that_cannot_be_cost_nothing(
    run: Run, clip: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    (tmp_path / "x.jsonl").touch()
    before = {p for p in tmp_path.rglob("*") if ".cache" not in p.parts}
    outcome = run("infer", clip, *arguments)
    assert outcome.code == code, outcome.stderr
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert {p for p in tmp_path.rglob("*") if ".cache" not in p.parts} == before


def test_window_without_a_screen_says_what_to_do(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasterseg.stream.sinks_display import display_problem

    if display_problem() is None:
        pytest.skip("this machine has a screen")
    outcome = run("infer", clip, "display:")
    assert outcome.code == 1
    assert "out.mp4" in outcome.stderr
