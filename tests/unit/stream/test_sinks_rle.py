from __future__ import annotations

import json
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID
from fasterseg.stream.rle import class_map, decode
from fasterseg.stream.sinks import FrameSink, open_sinks
from fasterseg.stream.sinks_rle import RleSink
from fasterseg.types import Size
from tests.contract.sink import SinkContract
from tests.unit.stream.conftest import FakeSource, limited_file_size, result_of, solid

IDS = tuple(range(len(CAMVID)))


class TestRle(SinkContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "new" / "out.jsonl"

    def open(self, path: Path) -> FrameSink:
        return RleSink(path, IDS)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_tells_its_frame_and_its_classes(tmp_path: Path) -> None:
    image = solid((0, 0, 0), Size(4, 6))
    image[:, 3:, 2] = 255
    result = result_of(image, 7, float(Fraction(7 * 1001, 30000)))
    result.mask[0, 0] = 255
    sink = RleSink(tmp_path / "x.jsonl", IDS)
    sink.write(result)
    sink.close()
    (line,) = lines_of(tmp_path / "x.jsonl")
    sky, pavement = line.pop("classes")
    assert line == {
        "schema": 1,
        "index": 7,
        "timestamp_s": 0.233567,
        "size": [4, 6],
        "labels": "camvid",
    }
    assert {key: sky[key] for key in ("id", "name", "area", "share")} == {
        "id": 0,
        "name": "Sky",
        "area": 11,
        "share": 0.458333,
    }
    assert (pavement["id"], pavement["area"], pavement["share"]) == (4, 12, 0.5)
    np.testing.assert_array_equal(decode(pavement["segmentation"]), result.mask == 4)
    np.testing.assert_array_equal(class_map({**line, "classes": [sky, pavement]}), result.mask)


def test_picture_files_are_named(tmp_path: Path) -> None:
    sink = RleSink(tmp_path / "x.jsonl", IDS)
    sink.write(result_of(solid((0, 0, 0)), name="bonn/a.jpg"))
    sink.write(result_of(solid((0, 0, 0), Size(8, 9)), 1, name="bonn/b.jpg"))
    sink.close()
    assert [line["name"] for line in lines_of(tmp_path / "x.jsonl")] == ["bonn/a.jpg", "bonn/b.jpg"]
    assert [line["size"] for line in lines_of(tmp_path / "x.jsonl")] == [[64, 96], [8, 9]]


def test_lines_can_be_read_while_the_file_is_being_written(tmp_path: Path) -> None:
    sink = RleSink(tmp_path / "x.jsonl", IDS)
    sink.write(result_of(solid((0, 0, 0))))
    assert len(lines_of(tmp_path / "x.jsonl")) == 1
    sink.close()


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    sink = RleSink(tmp_path / "x.jsonl", IDS)
    results = (result_of(picture, index) for index, picture in enumerate(noise))
    with (
        limited_file_size(60_000),
        pytest.raises(OutputError, match=r"cannot write .*x\.jsonl: File too large"),
    ):
        deque(map(sink.write, results), maxlen=0)
    sink.close()
    lines = lines_of(tmp_path / "x.jsonl")
    assert 1 <= len(lines) < 20
    assert [line["index"] for line in lines] == list(range(len(lines)))


def test_lines_go_to_standard_output(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (sink,) = open_sinks("-", ["rle"], FakeSource([]), CAMVID)
    for index in range(3):
        sink.write(result_of(solid((0, 0, 255)), index))
    sink.close()
    lines = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert sink.paths == []
