from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.stream import sources_camera
from fasterseg.stream.outputs import plan_outputs
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.sources import Kind, open_source
from fasterseg.stream.sources_live import LiveSource
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import Image, StandIn, read_video, solid

Script = Callable[[int], Any]


def steady(number: int) -> Image:
    """What the camera shows at its n-th grab, from 1."""
    return solid((number % 256, 0, 0))


class FakeCapture:
    """Stands in for cv2.VideoCapture: camera 0 and pipelines are there; `script` is the show.

    The script gives a picture for the number of the grab, None for a picture that cannot be
    decoded, and raises LookupError for a grab that fails.
    """

    opened: ClassVar[list[FakeCapture]] = []
    script: ClassVar[Script] = staticmethod(steady)
    rate: ClassVar[float] = 29.97002997

    def __init__(self, what: int | str, backend: int = 0) -> None:
        self.what = what
        self.backend = backend
        self.released = False
        self.grabbed = 0
        self.retrieved = 0
        self.opened.append(self)

    def isOpened(self) -> bool:  # noqa: N802
        return self.what != 5 and not self.released

    def get(self, name: int) -> float:
        return self.rate if name == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self.grabbed += 1
        try:
            self.shown = type(self).script(self.grabbed)
        except LookupError:
            return False
        return True

    def retrieve(self) -> tuple[bool, Any]:
        self.retrieved += 1
        return self.shown is not None, self.shown

    def release(self) -> None:
        self.released = True


@pytest.fixture(autouse=True)
def _camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", [])
    monkeypatch.setattr(sources_camera, "RETRY_S", 0.0)
    yield
    assert all(capture.released for capture in FakeCapture.opened if capture.what != 5)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Sets the script of the camera."""
    return lambda script: monkeypatch.setattr(FakeCapture, "script", staticmethod(script))


def missing(numbers: Sequence[int]) -> Script:
    """A camera whose grabs of these numbers fail."""

    def script(number: int) -> Image:
        if number in numbers:
            raise LookupError
        return steady(number)

    return script


def set_clock(monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    """Lets the camera take so many seconds from picture to picture."""
    now_s = [0.0]
    grab = FakeCapture.grab

    def slow_grab(capture: FakeCapture) -> bool:
        now_s[0] += step_s
        return grab(capture)

    monkeypatch.setattr(FakeCapture, "grab", slow_grab)
    defaults: Any = LiveSource.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", lambda: now_s[0])


def every(**options: Any) -> SourceOptions:
    """Options under which no frame is dropped, however slow the test."""
    return SourceOptions(drop="none", **options)


def blues(frames: Sequence[Any]) -> list[int]:
    """Which grabs the frames come from."""
    return [int(np.max(frame.image[..., 0])) for frame in frames]


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


def test_a_name_is_followed_to_the_camera_that_bears_it_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Callable[[Script], None]
) -> None:
    link = tmp_path / "usb-Front_Camera-index0"
    link.symlink_to("/dev/null")
    devices = iter(["/dev/video3", "/dev/video3", "/dev/video4"])
    monkeypatch.setattr("os.path.realpath", lambda path: next(devices, "/dev/video4"))
    show(missing(range(4, 1000)))
    again = every(limit=5, reconnect_attempts=2, reconnect_interval_s=0.001)
    source = open_source(str(link), again)
    assert (source.name, source.stem) == (str(link), "usb-Front_Camera-index0")
    assert len(list(source)) == 5
    assert [capture.what for capture in FakeCapture.opened] == [3, 4]
    source.close()


def test_a_named_camera_that_is_not_plugged_in_is_waited_for_like_any_other() -> None:
    name = "/dev/v4l/by-id/usb-Nowhere-index0"
    with pytest.raises(SourceError, match="usb-Nowhere-index0 is not there") as raised:
        open_source(name, every(reconnect_attempts=1, reconnect_interval_s=0.001))
    assert "one attempt" in str(raised.value)
    assert not FakeCapture.opened


def test_rate_is_the_fraction_it_announces() -> None:
    source = open_source("camera:0")
    assert source.fps == Fraction(30000, 1001)
    source.close()


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, 1e9])
def test_senseless_rate_is_no_rate(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCapture, "rate", rate)
    source = open_source("camera:0")
    assert source.fps is None
    source.close()


def test_stride_grabs_frames_without_decoding_them() -> None:
    source = open_source("camera:0", every(stride=3, limit=3))
    assert blues(list(source)) == [1, 4, 7]
    source.close()
    capture = FakeCapture.opened[0]
    assert capture.retrieved == -(-capture.grabbed // 3)


def test_max_fps_goes_by_the_clock_and_not_by_the_announced_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_clock(monkeypatch, 0.03)
    source = open_source("camera:0", every(max_fps=Fraction(10), limit=20))
    times = [frame.timestamp_s for frame in source]
    source.close()
    assert source.fps == 10
    assert np.diff(times).min() > 0.07
    assert times[-1] == pytest.approx(1.9, abs=0.1)


def test_start_lets_a_camera_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, 0.1)
    source = open_source("camera:0", every(start_s=1.0, limit=2))
    frames = list(source)
    source.close()
    assert [frame.index for frame in frames] == [0, 1]
    assert frames[0].timestamp_s == 0.0
    assert blues(frames)[0] > 4


def test_missing_camera_says_what_to_check() -> None:
    with pytest.raises(SourceError, match=r"camera 5 cannot be opened.*/dev/video5") as caught:
        open_source("camera:5")
    assert caught.value.exit_code == 3


def test_camera_without_a_picture_is_released(show: Callable[[Script], None]) -> None:
    show(missing(range(100)))
    with pytest.raises(SourceError, match="gives no picture"):
        open_source("camera:0")


def test_single_failures_are_passed_over_and_counted(show: Callable[[Script], None]) -> None:
    show(missing([2, 5, 6, 7]))
    source = open_source("camera:0", every(limit=4))
    frames = list(source)
    source.close()
    assert blues(frames) == [1, 3, 4, 8]
    assert source.lost_frames == 4
    assert source.warnings == ["camera:0 gave no picture at frame 1; it was passed over"]


def test_picture_that_cannot_be_decoded_is_lost_and_counted(
    show: Callable[[Script], None],
) -> None:
    show(lambda number: None if number == 2 else steady(number))
    source = open_source("camera:0", every(limit=2))
    frames = list(source)
    source.close()
    assert [frame.index for frame in frames] == [0, 2]
    assert source.lost_frames == 1


def test_unplugged_camera_is_an_error_after_what_it_gave_is_written(
    show: Callable[[Script], None], tmp_path: Path
) -> None:
    show(missing(range(8, 1000)))
    source = open_source("camera:0", every(reconnect_attempts=0))
    target = tmp_path / "out.mp4"
    assert plan_outputs(str(target), ["overlay"], source)
    sinks = open_sinks(str(target), ["overlay"], source, CAMVID)
    with pytest.raises(SourceError, match=r"camera:0 gives no picture any more \(frame 7\)"):
        run_pipeline(source, Segmenter(lambda size: StandIn()), sinks)
    pictures, _, _ = read_video(target)
    assert len(pictures) == 7


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (np.full((64, 96), 90, np.uint8), (90, 90, 90)),
        (np.full((64, 96, 1), 90, np.uint8), (90, 90, 90)),
        (np.full((64, 96, 4), (1, 2, 3, 200), np.uint8), (1, 2, 3)),
        (np.full((64, 96), 90 * 257, np.uint16), (90, 90, 90)),
    ],
    ids=["grey", "one channel", "BGRA", "16 bit"],
)
def test_other_pixel_formats_become_bgr(
    image: Any, pixel: tuple[int, int, int], show: Callable[[Script], None]
) -> None:
    show(lambda number: image)
    source = open_source("camera:0", every(limit=1))
    (frame,) = source
    source.close()
    assert frame.image.shape == (64, 96, 3)
    assert (frame.image == pixel).all()


def test_camera_of_an_unknown_format_says_which(show: Callable[[Script], None]) -> None:
    show(lambda number: np.zeros((64, 96, 2), np.uint8))
    with pytest.raises(SourceError, match=r"camera:0 holds 2 channels of uint8; convert"):
        open_source("camera:0")


def test_changing_size_is_fitted_to_the_first_with_one_warning(
    show: Callable[[Script], None],
) -> None:
    show(lambda number: solid((9, 9, 9), Size(64, 96) if number < 3 else Size(128, 64)))
    source = open_source("camera:0", every(limit=5))
    assert {frame.size for frame in source} == {Size(64, 96)}
    source.close()
    assert len(source.warnings) == 1
    assert "changes from 64x96 to 128x64" in source.warnings[0]


def test_camera_cannot_be_looped() -> None:
    with pytest.raises(UsageError, match="camera:0 comes only once"):
        open_source("camera:0", SourceOptions(loop=2))


class TestGStreamer(SourceContract):
    kind: Kind = "camera"

    @pytest.fixture(autouse=True)
    def _has_gstreamer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)

    @pytest.fixture
    def uri(self) -> str:
        return "gst: videotestsrc ! videoconvert ! appsink"

    def test_pipeline_is_handed_to_gstreamer(self, uri: str) -> None:
        source = open_source(uri)
        source.close()
        assert FakeCapture.opened[0].what == "videotestsrc ! videoconvert ! appsink"
        assert FakeCapture.opened[0].backend == cv2.CAP_GSTREAMER
        assert source.stem == "gstreamer"

    def test_its_end_is_no_loss(self, uri: str, show: Callable[[Script], None]) -> None:
        show(missing(range(6, 100)))
        source = open_source(uri, every())
        assert blues(list(source)) == [1, 2, 3, 4, 5]
        source.close()
        assert source.warnings == ["gstreamer ended after 5 frames"]
        assert source.lost_frames == 0

    def test_end_before_the_first_picture_is_an_error(
        self, uri: str, show: Callable[[Script], None]
    ) -> None:
        show(missing(range(100)))
        with pytest.raises(SourceError, match="ended before its first picture"):
            open_source(uri)


def test_pipeline_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(FakeCapture, "isOpened", lambda self: False)
    with pytest.raises(SourceError, match=r"does not start: nonsense ! appsink.*gst-launch"):
        open_source("gst:nonsense ! appsink")
    monkeypatch.setattr(FakeCapture, "opened", [])


def test_pipeline_needs_an_appsink() -> None:
    with pytest.raises(SourceError, match="must end in an appsink"):
        open_source("gst:videotestsrc ! autovideosink")


def test_opencv_without_gstreamer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(SourceError, match=r"built without GStreamer.*system-site-packages"):
        open_source("gst:videotestsrc ! appsink")


def test_gstreamer_is_looked_up_as_the_build_tells_it() -> None:
    information = cv2.getBuildInformation()
    line = next(line for line in information.splitlines() if "GStreamer" in line)
    assert cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER) == ("YES" in line)


def test_an_unplugged_camera_is_opened_again_when_it_is_back(
    show: Callable[[Script], None],
) -> None:
    show(lambda number: steady(number) if number < 6 else missing(range(1000))(number))
    source = open_source("camera:0", every(limit=15, reconnect_interval_s=0.0011))
    frames = list(source)
    source.close()
    assert blues(frames) == [1, 2, 3, 4, 5] * 3
    assert [frame.index for frame in frames] == list(range(15))
    assert len(FakeCapture.opened) == 3
    assert isinstance(source, LiveSource)
    assert source.account.now().reconnects == 2
    assert source.lost_frames >= 2 * sources_camera.MOST_FAILURES


def test_a_camera_that_stays_away_is_lost_for_good(
    show: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(missing(range(6, 1000)))
    source = open_source("camera:0", every(reconnect_attempts=2, reconnect_interval_s=0.0011))
    monkeypatch.setattr(FakeCapture, "isOpened", lambda self: False)
    with pytest.raises(SourceError, match=r"camera:0 was lost for good: 2 attempts.*/dev/video0"):
        list(source)
    source.close()
    monkeypatch.setattr(FakeCapture, "opened", [])


def test_a_pipeline_is_started_again_where_asked(show: Callable[[Script], None]) -> None:
    show(missing(range(4, 100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
        options = every(limit=6, reconnect_attempts=3, reconnect_interval_s=0.0011)
        source = open_source("gst:videotestsrc ! appsink", options)
        assert blues(list(source)) == [1, 2, 3, 1, 2, 3]
        source.close()


def test_a_fast_camera_gives_its_newest_pictures_and_counts_the_others() -> None:
    source = open_source("camera:0", SourceOptions(limit=5))
    frames = list(source)
    source.close()
    assert isinstance(source, LiveSource)
    indices = [frame.index for frame in frames]
    assert indices[0] == 0
    assert indices == sorted(set(indices))
    count = source.account.now()
    assert count.captured == len(frames) + count.dropped + count.passed_over
