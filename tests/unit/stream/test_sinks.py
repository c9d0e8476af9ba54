"""What sinks can be told, and several of them in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fasterseg.errors import ConfigError, OutputError, UnknownNameError, UsageError
from fasterseg.labels import CAMVID, CITYSCAPES, LabelSet
from fasterseg.overlay import draw
from fasterseg.palettes import read_palette
from fasterseg.registry import resolve
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.rle import class_map
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import SINKS, FrameSink, SinkOptions, open_sinks
from fasterseg.types import Frame
from tests.unit.stream.conftest import (
    FakeSource,
    Image,
    StandIn,
    classes_of,
    limited_file_size,
    read_video,
    result_of,
    solid,
)

ALL = ["overlay", "classmap", "classmap-png", "rle", "stats"]


def custom(count: int) -> LabelSet:
    """A label set of our own, with ids of its own."""
    names = tuple(f"thing {index}" for index in range(count))
    colours = tuple((index * 2, 255 - index, index) for index in range(count))
    return LabelSet("own", names, colours, source_ids=tuple(2 * i + 1 for i in range(count)))


def write_one(output: Path, name: str, labels: LabelSet, mask: Image, options: SinkOptions) -> Any:
    """One image through one format; returns what OpenCV reads."""
    image = np.random.default_rng(1).integers(0, 256, (*mask.shape, 3), np.uint8)
    source = FakeSource([image])
    source.kind = "image"
    (sink,) = open_sinks(str(output), [name], source, labels, options)
    sink.write(SegmentationResult(mask, labels, Frame(image, 0, 0.0)))
    sink.close()
    return cv2.imread(str(output), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("name", SINKS)
def test_every_registered_format_has_its_function(name: str) -> None:
    assert callable(resolve(SINKS, "format", name))


def test_opening_touches_no_file(tmp_path: Path) -> None:
    sinks = open_sinks(str(tmp_path / "new" / "x"), ALL, FakeSource([solid((0, 0, 0))]), CAMVID)
    for sink in sinks:
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_null_gives_no_sink() -> None:
    assert open_sinks("null:", ["overlay"], FakeSource([]), CAMVID) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1\.5"),
        ({"alpha": -0.1}, "alpha"),
        ({"ids": "names"}, "--labels names is not one of trainid, labelid"),
        ({"h264": "tiny"}, "--h264 tiny is not one of fast, small"),
        ({"alpha": 0.0, "legend": True}, "add --contours"),
    ],
)
def test_options_that_cannot_be_right_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SinkOptions(**wrong)


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (["classmap"], SinkOptions(legend=True), "--legend changes nothing here"),
        (["rle"], SinkOptions(contours=True), "--contours changes nothing here"),
        (["classmap-png"], SinkOptions(palette="voc"), "--palette changes nothing here"),
        (["overlay", "classmap"], SinkOptions(indexed=True), "--indexed .*classmap-png"),
        (["overlay", "stats"], SinkOptions(ids="labelid"), "--labels labelid changes nothing"),
        (["overlay"], SinkOptions(per_frame=True), "--per-frame changes nothing"),
        (["classmap"], SinkOptions(h264="small"), "--h264 changes nothing"),
    ],
)
def test_options_that_nothing_would_heed_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    formats: list[str],
    options: SinkOptions,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        open_sinks(None, formats, FakeSource([]), CAMVID, options)


def test_unknown_palette_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="distinct, voc"):
        open_sinks(None, ["overlay"], FakeSource([]), CAMVID, SinkOptions(palette="rainbow"))


def test_palette_of_another_length_is_told() -> None:
    with pytest.raises(ConfigError, match="19 colours, the model 'own' 3 classes"):
        open_sinks(None, ["overlay"], FakeSource([]), custom(3), SinkOptions(palette="cityscapes"))


def test_overlay_is_drawn_as_told(tmp_path: Path) -> None:
    mask = np.repeat(np.arange(8, dtype=np.uint8), 40)[:, None] * np.ones((1, 50), np.uint8)
    options = SinkOptions(alpha=0.3, contours=True, legend=True, palette="voc")
    stored = write_one(tmp_path / "x.png", "overlay", CAMVID, mask, options)
    image = np.random.default_rng(1).integers(0, 256, (*mask.shape, 3), np.uint8)
    expected = draw(image, mask, read_palette("voc").paint(CAMVID), options.style)
    np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize("count", [1, 3, 60, 127])
def test_models_of_any_class_count_are_written_in_every_format(tmp_path: Path, count: int) -> None:
    labels = custom(count)
    mask = (np.arange(64 * 96).reshape(64, 96) % count).astype(np.uint8)
    result = SegmentationResult(mask, labels, Frame(np.full((64, 96, 3), 90, np.uint8), 0, 0.0))
    sinks = open_sinks(str(tmp_path / "x"), ALL, FakeSource([result.frame.image]), labels)
    for sink in sinks:
        sink.write(result)
        sink.close()
    stats = json.loads((tmp_path / "x.stats.json").read_text())
    assert list(stats["class_shares"]) == list(labels.classes)
    record = json.loads((tmp_path / "x.rle.jsonl").read_text())
    assert [entry["name"] for entry in record["classes"]] == list(labels.classes)
    np.testing.assert_array_equal(class_map(record), mask)
    with av.open(str(tmp_path / "x.classmap.mkv")) as container:
        np.testing.assert_array_equal(next(container.decode(video=0)).to_ndarray(), mask)
    stored = cv2.imread(str(tmp_path / "x.classmap-png" / "000000.png"), -1)
    np.testing.assert_array_equal(stored, mask)


def test_label_ids_are_those_of_the_data_set(tmp_path: Path) -> None:
    mask = np.array([[*range(19), 255]], np.uint8)
    options = SinkOptions(ids="labelid")
    stored = write_one(tmp_path / "x.png", "classmap", CITYSCAPES, mask, options)
    assert stored.tolist() == [[*CITYSCAPES.source_ids, 255]]
    write_one(tmp_path / "x.jsonl", "rle", CITYSCAPES, mask, options)
    record = json.loads((tmp_path / "x.jsonl").read_text())
    assert [entry["id"] for entry in record["classes"]] == list(CITYSCAPES.source_ids)
    np.testing.assert_array_equal(class_map(record), stored)


def test_label_ids_of_a_model_without_any_are_refused() -> None:
    with pytest.raises(UsageError, match="'camvid' of this model have no ids but their train ids"):
        open_sinks(None, ["classmap"], FakeSource([]), CAMVID, SinkOptions(ids="labelid"))


def test_label_ids_that_fit_no_byte_are_refused() -> None:
    labels = LabelSet("far", ("a", "b"), ((0, 0, 0), (1, 1, 1)), source_ids=(7, 256))
    with pytest.raises(UsageError, match="not all in 0 to 255"):
        open_sinks(None, ["classmap"], FakeSource([]), labels, SinkOptions(ids="labelid"))


@pytest.mark.parametrize("ids", ["trainid", "labelid"])
def test_indexed_class_map_shows_the_colours_of_its_ids(tmp_path: Path, ids: Any) -> None:
    mask = np.arange(19, dtype=np.uint8)[None]
    options = SinkOptions(ids=ids, indexed=True)
    shown = write_one(tmp_path / "x.png", "classmap-png", CITYSCAPES, mask, options)
    assert [tuple(colour) for colour in shown[0, :, ::-1].tolist()] == list(CITYSCAPES.palette)


class FailsLate:
    """A real sink on a disk that is full from the ninth result on."""

    def __init__(self, sink: FrameSink) -> None:
        self.paths = sink.paths
        self.close = sink.close
        self._sink = sink

    def write(self, result: SegmentationResult) -> None:
        if result.frame_index == 8:
            raise OutputError("cannot write: No space left on device")
        self._sink.write(result)


def run_all(tmp_path: Path, formats: list[str], count: int = 40, failing: str = "") -> Path:
    """Noise through several formats in one pass; returns the stem."""
    images = list(np.random.default_rng(0).integers(0, 256, (count, 64, 96, 3), np.uint8))
    source = FakeSource(images)
    opened = open_sinks(str(tmp_path / "x"), formats, source, CAMVID)
    sinks = [
        FailsLate(sink) if name == failing else sink
        for name, sink in zip(formats, opened, strict=True)
    ]
    run_pipeline(source, Segmenter(lambda size: StandIn()), sinks)
    return tmp_path / "x"


def readable(stem: Path) -> dict[str, int]:
    """Format -> frames that can be read of it."""
    with av.open(f"{stem}.classmap.mkv") as container:
        maps = sum(1 for _ in container.decode(video=0))
    lines = [json.loads(line) for line in Path(f"{stem}.rle.jsonl").read_text().splitlines()]
    return {
        "overlay": len(read_video(Path(f"{stem}.overlay.mp4"))[0]),
        "classmap": maps,
        "rle": sum(class_map(line).size == 64 * 96 for line in lines),
        "stats": json.loads(Path(f"{stem}.stats.json").read_text())["frames"],
    }


def test_all_formats_hold_every_frame_of_one_pass(tmp_path: Path) -> None:
    stem = run_all(tmp_path, ["overlay", "classmap", "rle", "stats"], 12)
    assert readable(stem) == dict.fromkeys(["overlay", "classmap", "rle", "stats"], 12)


def test_the_formats_of_one_pass_agree(tmp_path: Path) -> None:
    run_all(tmp_path, ["classmap", "classmap-png", "rle"], 4)
    lines = (tmp_path / "x.rle.jsonl").read_text().splitlines()
    with av.open(str(tmp_path / "x.classmap.mkv")) as container:
        for index, frame in enumerate(container.decode(video=0)):
            picture = cv2.imread(str(tmp_path / "x.classmap-png" / f"{index:06d}.png"), -1)
            np.testing.assert_array_equal(frame.to_ndarray(), picture)
            np.testing.assert_array_equal(class_map(json.loads(lines[index])), picture)


@pytest.mark.parametrize("failing", ["overlay", "classmap", "rle", "stats"])
def test_one_format_that_fails_late_leaves_all_complete(tmp_path: Path, failing: str) -> None:
    with pytest.raises(OutputError, match="No space left"):
        run_all(tmp_path, ["overlay", "classmap", "rle", "stats"], failing=failing)
    frames = readable(tmp_path / "x")
    assert frames.pop(failing) == 8
    assert set(frames.values()) <= {8, 9}


def test_full_disk_in_one_pass_leaves_every_format_readable(tmp_path: Path) -> None:
    with limited_file_size(60_000), pytest.raises(OutputError, match="File too large"):
        run_all(tmp_path, ["overlay", "classmap", "rle", "stats"], 200)
    frames = readable(tmp_path / "x")
    assert 1 <= frames["rle"] < 200
    assert frames["stats"] >= frames["rle"]


def test_results_name_their_own_classes() -> None:
    result = result_of(solid((0, 0, 255)), labels=custom(8))
    assert result.class_fractions()["thing 4"] == 1.0
    assert (classes_of(result.frame.image) == 4).all()
