from __future__ import annotations

import io
import os
import sys
from fractions import Fraction

import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID
from fasterseg.stream.sinks import SinkOptions, open_sinks
from fasterseg.stream.sinks_raw import RawSink
from fasterseg.types import Size
from tests.unit.stream.conftest import FakeSource, result_of, solid

RESULTS = [result_of(solid((0, 0, 60 * index), Size(33, 47)), index) for index in range(4)]


def test_class_maps_are_a_byte_a_pixel(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (sink,) = open_sinks("-", ["classmap"], FakeSource([]), CAMVID)
    for result in RESULTS:
        sink.write(result)
    sink.close()
    read = np.frombuffer(capsysbinary.readouterr().out, np.uint8).reshape(4, 33, 47)
    np.testing.assert_array_equal(read, [result.mask for result in RESULTS])
    assert sink.paths == []


def test_overlays_are_bgr_as_drawn(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (sink,) = open_sinks("-", ["overlay"], FakeSource([]), CAMVID, SinkOptions(alpha=0.25))
    sink.write(RESULTS[3])
    sink.close()
    read = np.frombuffer(capsysbinary.readouterr().out, np.uint8).reshape(33, 47, 3)
    np.testing.assert_array_equal(read, RESULTS[3].overlay(0.25))


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("classmap", SinkOptions(), ("raw gray, 33x47", "-pixel_format gray -video_size 47x33")),
        ("overlay", SinkOptions(), ("raw bgr24, 33x47", "-framerate 30000/1001 -i -")),
    ],
)
def test_hint_is_a_line_for_ffmpeg(name: str, options: SinkOptions, parts: tuple[str, ...]) -> None:
    (sink,) = open_sinks("-", [name], FakeSource([]), CAMVID, options)
    assert isinstance(sink, RawSink)
    hint = sink.hint(Size(33, 47), Fraction(30000, 1001), CAMVID)
    assert all(part in hint for part in parts)


def test_hint_counts_the_legend() -> None:
    (sink,) = open_sinks("-", ["overlay"], FakeSource([]), CAMVID, SinkOptions(legend=True))
    assert isinstance(sink, RawSink)
    width = RESULTS[0].overlay(legend=True).shape[1]
    assert f"-video_size {width}x33 " in sink.hint(Size(33, 47), Fraction(25), CAMVID)


def test_pictures_of_another_size_have_no_place_in_a_pipe() -> None:
    sink = RawSink(lambda result: result.mask, io.BytesIO())
    sink.write(RESULTS[0])
    with pytest.raises(OutputError, match=r"picture 9 is 32x48 \(HxW\) after others of 33x47"):
        sink.write(result_of(solid((0, 0, 0), Size(32, 48)), 9))


def test_reader_that_went_away_is_told_as_such() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        sink = RawSink(lambda result: result.mask, pipe)
        with pytest.raises(BrokenPipeError):
            sink.write(RESULTS[0])
        sink.close()


def test_full_disk_behind_standard_output_is_an_output_error() -> None:
    if sys.platform != "linux":
        pytest.skip("/dev/full is of Linux")
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        sink = RawSink(lambda result: result.mask, full)
        with pytest.raises(OutputError, match="No space left"):
            sink.write(RESULTS[0])
