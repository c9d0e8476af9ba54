"""`fasterseg-infer` as users type it: files appear, mistakes cost nothing and say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from fasterseg.types import Size
from tests.media import write_clip
from tests.parity import street_like
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

SIZE = Size(72, 128)
ENGINE = ("--size", "64x112", "--threads", "1")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames at 25 frames per second."""
    return write_clip(tmp_path / "drive.mp4", 6, SIZE)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_clip_gives_an_overlay_beside_it_by_default(run: Run, clip: Path, tmp_path: Path) -> None:
    outcome = run("infer", clip, *ENGINE)
    assert outcome.code == 0, outcome.stderr
    assert frames_of(tmp_path / "drive_fasterseg.mp4") == 6
    assert outcome.stdout == ""
    for part in ("6 frames", "FPS end to end", "decode", "write", "Road"):
        assert part in outcome.stderr
    assert "untrained" not in outcome.stderr
    outcome = run("infer", clip, "null:", *ENGINE, "--model", "fasterseg-student", "-q")
    assert "untrained" in outcome.stderr


def test_several_formats_share_a_stem_and_json_goes_to_stdout(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    formats = ("--format", "overlay,classmap-png,stats", "--json", "-")
    outcome = run("infer", clip, tmp_path / "out", *ENGINE, *formats)
    assert outcome.code == 0, outcome.stderr
    maps = sorted((tmp_path / "out.classmap-png").glob("*.png"))
    assert len(maps) == 6
    mask = cv2.imread(str(maps[0]), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == SIZE
    assert mask.max() < 11
    facts = json.loads(outcome.stdout)
    assert facts["frames"] == 6
    assert facts["truncated"] is False
    assert set(facts["latency_ms"]) == {"decode", "prepare", "engine", "finish", "write"}
    assert facts["engine"]["name"] == "fasterseg-camvid"
    assert sum(facts["class_shares"].values()) == pytest.approx(1.0, abs=1e-4)
    assert json.loads((tmp_path / "out.stats.json").read_text())["frames"] == 6


def test_class_maps_are_those_of_the_exported_file_run_by_hand(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    import onnxruntime

    engine = tmp_path / "engine.onnx"
    assert run("export", "fasterseg-camvid", "--size", "72x128", "-o", engine).code == 0
    outcome = run("infer", clip, tmp_path / "maps", "--engine", engine, "--format", "classmap")
    assert outcome.code == 0, outcome.stderr
    session = onnxruntime.InferenceSession(str(engine), providers=["CPUExecutionProvider"])
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="bgr24")
            expected = session.run(None, {"frames": image[None]})[0][0]
            written = cv2.imread(str(tmp_path / "maps" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
            assert written is not None
            assert np.array_equal(written, expected)


def test_one_image_in_one_image_out(run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "street.png"), street_like(SIZE)[0])
    assert run("infer", "street.png", *ENGINE).code == 0
    overlay = cv2.imread(str(tmp_path / "street_fasterseg.png"))
    assert overlay is not None
    assert overlay.shape == (*SIZE, 3)


def test_stride_and_limit_are_obeyed(run: Run, clip: Path, tmp_path: Path) -> None:
    outcome = run("infer", clip, tmp_path / "o.mp4", *ENGINE, "--stride", "2", "--limit", "2")
    assert outcome.code == 0
    assert frames_of(tmp_path / "o.mp4") == 2


def test_null_output_writes_nothing(run: Run, clip: Path, tmp_path: Path) -> None:
    before = set(tmp_path.glob("*"))
    assert run("infer", clip, "null:", *ENGINE, "-q").code == 0
    assert {p for p in tmp_path.glob("*") if not p.name.startswith(".")} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.mp4"], 3, "missing.mp4"),
        (["."], 3, "no pictures"),
        (["drive.mp4", "drive.mp4"], 2, "input"),
        (["drive.mp4", "--size", "64"], 2, "HEIGHTxWIDTH"),
        (["drive.mp4", "--size", "32x32"], 2, "64x64"),
        (["drive.mp4", "--format", "gif"], 2, "overlay"),
        (["drive.mp4", "--engine", "cuda"], 2, "onnxruntime"),
        (["drive.mp4", "--engine", "none.onnx"], 4, "fasterseg export"),
        (["drive.mp4", "--model", "yolo"], 2, "fasterseg-camvid"),
        (["drive.mp4", "--precision", "fp8"], 2, "int8"),
        (["drive.mp4", "--precision", "int8", "--engine", "torch"], 2, "--engine onnxruntime"),
        (
            ["drive.mp4", "--precision", "int8", "--model", "fasterseg-teacher"],
            4,
            "fasterseg calibrate fasterseg-teacher --images PATH",
        ),
        (["drive.mp4", "--fit", "crop"], 2, "letterbox"),
        (["drive.mp4", "--alpha", "2"], 2, "alpha"),
        (["drive.mp4", "--limit", "0"], 2, "limit"),
        (["drive.mp4", "--unknown"], 2, "--unknown"),
        (["drive.mp4", "/proc/nowhere/out.mp4"], 1, "/proc/nowhere"),
    ],
)
def test_mistakes_end_with_the_right_code_and_the_remedy(
    run: Run, clip: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    before = {p for p in tmp_path.rglob("*") if ".cache" not in p.parts}
    outcome = run("infer", *arguments)
    assert outcome.code == code, outcome.stderr
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert {p for p in tmp_path.rglob("*") if ".cache" not in p.parts} == before


def test_width_before_height_is_answered_with_a_hint(run: Run, clip: Path) -> None:
    outcome = run("infer", clip, "--size", "128x72")
    assert "128x72 is 128 rows by 72 columns" in outcome.stderr
    assert "--size 72x128" in outcome.stderr


def test_an_existing_output_is_kept_unless_told(run: Run, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.mp4"
    target.write_bytes(b"precious")
    outcome = run("infer", clip, target, *ENGINE)
    assert outcome.code == 2
    assert "--overwrite" in outcome.stderr
    assert target.read_bytes() == b"precious"
    assert run("infer", clip, target, *ENGINE, "--overwrite").code == 0
    assert frames_of(target) == 6


def test_debug_shows_the_traceback(run: Run) -> None:
    assert "Traceback" in run("infer", "missing.mp4", "--debug").stderr
    assert "Traceback" not in run("infer", "missing.mp4").stderr


def test_overlay_videos_can_be_made_smaller(run: Run, clip: Path, tmp_path: Path) -> None:
    sizes = {}
    for how in ("fast", "small"):
        outcome = run("infer", clip, f"{how}.mp4", *ENGINE, "--h264", how, "-q")
        assert outcome.code == 0, outcome.stderr
        assert frames_of(tmp_path / f"{how}.mp4") == 6
        sizes[how] = (tmp_path / f"{how}.mp4").stat().st_size
    assert sizes["small"] != sizes["fast"]
    outcome = run("infer", clip, "x.mp4", *ENGINE, "--h264", "huge")
    assert outcome.code == 2
    assert "--h264 huge is not one of fast, small" in outcome.stderr
