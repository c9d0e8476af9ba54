"""The real driving clips, start to end: every frame, the source's rate, independent class maps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
import pytest

from fasterseg.cli.main import app
from fasterseg.cli.options import exit_code_of
from tests.shared import shared

pytestmark = pytest.mark.onnx

CLIPS = {
    "udacity_solidWhiteRight.mp4": (221, 540, 960),
    "mmyolo_highway_bus_720p.mp4": (67, 720, 1280),
    "camvid_0016E5_val_15fps.mp4": (101, 360, 480),
}
QUICK = ("--size", "64x112", "--threads", "2", "-q")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def rate_and_times(path: Path) -> tuple[Fraction, list[float], tuple[int, int]]:
    """Average rate, timestamps in seconds, and (height, width) of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate is not None
        times = [frame.time for frame in frames]
        assert all(time is not None for time in times)
        start = times[0] or 0.0
        return (
            Fraction(stream.average_rate),
            [float(time or 0.0) - start for time in times],
            (frames[0].height, frames[0].width),
        )


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_comes_out_at_its_time(name: str) -> None:
    count, height, width = CLIPS[name]
    source = shared(f"data/videos/{name}")
    assert exit_code_of(app, ["infer", str(source), "out.mp4", *QUICK]) == 0
    rate, times, size = rate_and_times(Path("out.mp4"))
    source_rate, source_times, _ = rate_and_times(source)
    assert (len(times), size) == (count, (height, width))
    assert rate == source_rate
    assert np.allclose(times, source_times, atol=1e-6)


@pytest.mark.parametrize("name", CLIPS)
def test_class_maps_equal_an_independent_run_of_the_exported_file(name: str) -> None:
    source = shared(f"data/videos/{name}")
    _, height, width = CLIPS[name]
    export = ["export", "fasterseg-camvid", "--size", f"{height}x{width}", "-o", "e.onnx"]
    assert exit_code_of(app, export) == 0
    infer = ["infer", str(source), "maps", "--engine", "e.onnx", "--format", "classmap"]
    assert exit_code_of(app, [*infer, "--stride", "20", "--limit", "4", "-q"]) == 0
    session = onnxruntime.InferenceSession("e.onnx", providers=["CPUExecutionProvider"])
    compared = 0
    with av.open(str(source)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            written = Path(f"maps/{index:06d}.png")
            if not written.exists():
                continue
            image = frame.to_ndarray(format="bgr24")
            expected = session.run(None, {"frames": image[None]})[0][0]
            labels = cv2.imread(str(written), cv2.IMREAD_UNCHANGED)
            assert labels is not None
            # Two colour converters may round a pixel differently by one; labels hardly notice.
            assert np.mean(labels == expected) >= 0.999
            compared += 1
    assert compared == 4


def test_a_folder_of_jpegs_keeps_names_and_sizes() -> None:
    folder = shared("data/camvid/images/val")
    arguments = ["infer", str(folder), "maps", "--format", "classmap", "--limit", "7", *QUICK]
    assert exit_code_of(app, arguments) == 0
    sources = sorted(folder.glob("*.jpg"))[:7]
    assert sorted(p.stem for p in Path("maps").glob("*.png")) == [p.stem for p in sources]
    labels = cv2.imread(f"maps/{sources[0].stem}.png", cv2.IMREAD_UNCHANGED)
    assert labels is not None
    assert labels.shape == (360, 480)
    assert labels.max() < 11


def test_pictures_of_several_sizes_each_keep_their_own() -> None:
    folder = shared("data/bdd100k-samples/images")
    assert exit_code_of(app, ["infer", str(folder), "maps", "--format", "classmap", *QUICK]) == 0
    for source in folder.glob("*.jpg"):
        image = cv2.imread(str(source))
        labels = cv2.imread(f"maps/{source.stem}.png", cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert labels is not None
        assert labels.shape == image.shape[:2]
