from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar

import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream.sources import Kind, open_source
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import Image, solid


class FakeCapture:
    """Stands in for cv2.VideoCapture: camera 0 is there, others are not."""

    opened: ClassVar[list[FakeCapture]] = []
    lost_after: ClassVar[int | None] = None

    def __init__(self, number: int) -> None:
        self.number = number
        self.released = False
        self.grabbed = 0
        self.opened.append(self)

    def isOpened(self) -> bool:  # noqa: N802
        return self.number == 0 and not self.released

    def get(self, name: int) -> float:
        return 29.97002997 if name == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self.grabbed += 1
        return True

    def read(self) -> tuple[bool, Image | None]:
        if self.lost_after is not None and self.grabbed >= self.lost_after:
            return False, None
        self.grabbed += 1
        return True, solid((self.grabbed % 256, 0, 0))

    def release(self) -> None:
        self.released = True


@pytest.fixture(autouse=True)
def _camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", [])
    yield
    assert all(capture.released for capture in FakeCapture.opened if capture.number == 0)


class TestCamera(SourceContract):
    kind: Kind = "camera"

    @pytest.fixture
    def uri(self) -> str:
        return "camera:0"


def test_device_file_is_the_camera_of_its_number() -> None:
    source = open_source("/dev/video0")
    assert source.name == "camera:0"
    assert source.stem == "camera0"
    source.close()


def test_rate_is_the_fraction_it_announces() -> None:
    source = open_source("camera:0")
    assert source.fps == Fraction(30000, 1001)
    source.close()


def test_stride_grabs_frames_without_decoding_them() -> None:
    source = open_source("camera:0", stride=3, limit=3)
    blues = [int(np.max(frame.image[..., 0])) for frame in source]
    source.close()
    assert blues == [1, 4, 7]


def test_missing_camera_says_what_to_check() -> None:
    with pytest.raises(SourceError, match=r"camera 5 cannot be opened.*/dev/video5"):
        open_source("camera:5")


def test_camera_without_a_picture_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCapture, "lost_after", 0)
    with pytest.raises(SourceError, match="gives no picture"):
        open_source("camera:0")


def test_lost_camera_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCapture, "lost_after", 2)
    source = open_source("camera:0")
    frames = iter(source)
    next(frames)
    next(frames)
    with pytest.raises(SourceError, match=r"camera:0 gives no picture \(frame 2\)"):
        next(frames)
    source.close()
