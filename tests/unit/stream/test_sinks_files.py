from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fasterseg.errors import OutputError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.stream.outputs import OutputPlan
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import FrameSink, SinkOptions, open_sinks
from fasterseg.stream.sinks_files import StatsSink, open_classmap
from fasterseg.types import Size, StageTimes
from tests.contract.sink import SinkContract
from tests.unit.stream.conftest import FakeSource, limited_file_size, result_of, solid


def picture(size: Size, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


class TestClassMapFolder(SinkContract):
    def open(self, path: Path) -> FrameSink:
        source = FakeSource([solid((0, 0, 0))])
        return open_classmap(OutputPlan(path, "folder"), source, CAMVID, SinkOptions())


class TestClassMapFile(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.png"

    def open(self, path: Path) -> FrameSink:
        source = FakeSource([solid((0, 0, 0))])
        return open_classmap(OutputPlan(path, "file"), source, CAMVID, SinkOptions())


class TestStats(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.json"

    def open(self, path: Path) -> FrameSink:
        return StatsSink(path, "fake", CAMVID, per_frame=False)


@pytest.mark.parametrize("size", [Size(64, 96), Size(33, 47), Size(1, 1)])
def test_class_maps_are_the_exact_ids_at_the_exact_size(tmp_path: Path, size: Size) -> None:
    result = result_of(picture(size))
    result.mask[0, 0] = 255
    (sink,) = open_sinks(
        str(tmp_path / "x"), ["classmap"], FakeSource([result.frame.image]), CAMVID
    )
    sink.write(result)
    stored = cv2.imread(str(tmp_path / "x" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, result.mask)


def test_frames_of_a_video_are_named_by_their_index(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    (sink,) = open_sinks(str(tmp_path / "x"), ["overlay"], source, CAMVID)
    for index in (0, 42):
        sink.write(result_of(solid((0, 0, 0)), index))
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["000000.png", "000042.png"]


def test_pictures_of_a_pattern_are_named_by_their_index(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    pattern = tmp_path / "new" / "map-%04d.png"
    (sink,) = open_sinks(str(pattern), ["classmap"], source, CAMVID)
    for index in (0, 42):
        sink.write(result_of(solid((0, 0, 0)), index))
    sink.close()
    assert sink.paths == [pattern]
    assert sorted(f.name for f in pattern.parent.iterdir()) == ["map-0000.png", "map-0042.png"]


def test_pictures_in_a_folder_with_a_dot_are_png(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    (sink,) = open_sinks(str(tmp_path / "v1.2"), ["overlay"], source, CAMVID)
    sink.write(result_of(solid((0, 0, 0))))
    assert cv2.imread(str(tmp_path / "v1.2" / "000000.png")) is not None


def test_picture_with_a_very_long_name_is_written(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    source.kind = "images"
    (sink,) = open_sinks(str(tmp_path / "x"), ["classmap"], source, CAMVID)
    sink.write(result_of(solid((0, 0, 0)), name="ä" * 125 + ".jpg"))
    assert len(list((tmp_path / "x").iterdir())) == 1


def test_name_that_is_no_utf8_is_kept(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    source.kind = "images"
    (sink,) = open_sinks(str(tmp_path / "x"), ["classmap"], source, CAMVID)
    sink.write(result_of(solid((0, 0, 0)), name=os.fsdecode(b"a\xff.jpg")))
    assert os.listdir(os.fsencode(tmp_path / "x")) == [b"a\xff.png"]  # noqa: PTH208


def test_pictures_keep_their_stems_and_subfolders(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    source.kind = "images"
    (sink,) = open_sinks(str(tmp_path / "x"), ["classmap"], source, CAMVID)
    for name in ("a.jpg", "bonn/b.c.png"):
        sink.write(result_of(solid((0, 0, 0)), name=name))
    assert (tmp_path / "x" / "a.png").is_file()
    assert (tmp_path / "x" / "bonn" / "b.c.png").is_file()


def test_two_pictures_of_one_name_are_refused_at_the_start(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    source.kind = "images"
    source.files = (Path("in/a.jpg"), Path("in/b.jpg"), Path("in/a.png"))
    with pytest.raises(UsageError, match=r"in/a\.jpg and in/a\.png.*written as a\.png"):
        open_sinks(str(tmp_path / "x"), ["classmap"], source, CAMVID)


def test_overlay_picture_is_the_results_overlay(tmp_path: Path) -> None:
    result = result_of(picture(Size(20, 30)))
    source = FakeSource([result.frame.image])
    source.kind = "image"
    options = SinkOptions(alpha=0.25)
    (sink,) = open_sinks(str(tmp_path / "x.png"), ["overlay"], source, CAMVID, options)
    sink.write(result)
    stored = cv2.imread(str(tmp_path / "x.png"))
    assert stored is not None
    np.testing.assert_array_equal(stored, result.overlay(0.25))


def test_full_disk_is_told_and_leaves_no_half_picture(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    (sink,) = open_sinks(str(tmp_path / "x"), ["overlay"], source, CAMVID)
    with limited_file_size(1000), pytest.raises(OutputError, match=r"cannot write .*000000\.png"):
        sink.write(result_of(picture(Size(64, 96))))
    assert list((tmp_path / "x").iterdir()) == []


def test_a_picture_takes_the_place_of_another_only_when_it_is_whole(tmp_path: Path) -> None:
    there = tmp_path / "x" / "000000.png"
    there.parent.mkdir()
    there.write_bytes(b"the old one")
    source = FakeSource([solid((0, 0, 0))])
    (sink,) = open_sinks(str(tmp_path / "x"), ["overlay"], source, CAMVID, overwrite=True)
    result = result_of(picture(Size(64, 96)))
    with limited_file_size(1000), pytest.raises(OutputError):
        sink.write(result)
    assert there.read_bytes() == b"the old one"
    sink.write(result)
    assert cv2.imread(str(there)) is not None
    assert list(there.parent.iterdir()) == [there]


def timed_result(index: int, red: int) -> SegmentationResult:
    """96 pixels of which the first `red` rows of 12 are red: class 4 (Pavement)."""
    image = solid((0, 0, 0), Size(8, 12))
    image[:red, :, 2] = 255
    result = result_of(image, index, index / 25)
    result.times = StageTimes(1.0, 2.0, 3.0 + index, 4.0, 0.0)
    return result


def test_statistics_sum_up_shares_and_times(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    options = SinkOptions(per_frame=True)
    (sink,) = open_sinks(str(tmp_path / "x.json"), ["stats"], source, CAMVID, options)
    sink.write(timed_result(0, red=2))
    sink.write(timed_result(3, red=8))
    sink.close()
    stats = json.loads((tmp_path / "x.json").read_text())
    assert stats["schema"] == 1
    assert stats["source"] == "fake"
    assert stats["frames"] == 2
    assert stats["class_shares"]["Pavement"] == 0.625
    assert stats["class_shares"]["Sky"] == 0.375
    assert list(stats["latency_ms"]) == ["decode", "prepare", "engine", "finish"]
    assert stats["latency_ms"]["engine"]["mean_ms"] == 4.5
    assert [frame["index"] for frame in stats["per_frame"]] == [0, 3]
    assert [frame["timestamp_s"] for frame in stats["per_frame"]] == [0.0, 0.12]
    assert [frame["class_shares"]["Pavement"] for frame in stats["per_frame"]] == [0.25, 1.0]


def test_statistics_list_frames_only_when_asked(tmp_path: Path) -> None:
    source = FakeSource([solid((0, 0, 0))])
    (sink,) = open_sinks(str(tmp_path / "x.json"), ["stats"], source, CAMVID)
    sink.write(timed_result(0, red=2))
    sink.close()
    assert "per_frame" not in json.loads((tmp_path / "x.json").read_text())
