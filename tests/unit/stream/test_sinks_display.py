"""The window, with a stand-in for OpenCV's: test machines have no screen."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import cv2
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID
from fasterseg.stream import sinks_display
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.sinks_display import DisplaySink, display_problem
from fasterseg.types import Size
from tests.unit.stream.conftest import FakeSource, StandIn, number_of, numbered, result_of, solid


class Screen:
    """OpenCV's windows, remembered: what was shown when, in which thread; keys on demand."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, float]] = []
        self.threads: set[str] = set()
        self.opened: list[tuple[str, Size]] = []
        self.destroyed = 0
        self.visible = True
        self.keys: list[int] = []

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def waitkey(delay: int) -> int:
            time.sleep(delay / 1e3)
            return self.keys.pop(0) if self.keys else -1

        def imshow(title: str, image: Any) -> None:
            self.threads.add(threading.current_thread().name)
            self.shown.append((number_of(image), time.perf_counter()))

        def destroy() -> None:
            self.destroyed += 1

        monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: None)
        monkeypatch.setattr(
            cv2, "resizeWindow", lambda title, w, h: self.opened.append((title, Size(h, w)))
        )
        monkeypatch.setattr(cv2, "imshow", imshow)
        monkeypatch.setattr(cv2, "waitKey", waitkey)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: float(self.visible))
        monkeypatch.setattr(cv2, "destroyAllWindows", destroy)
        monkeypatch.setattr(sinks_display, "display_problem", lambda: None)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    screen.patch(monkeypatch)
    return screen


def frame_of(result: Any) -> Any:
    return result.frame.image


def test_every_frame_is_shown_in_one_thread_at_its_time(screen: Screen) -> None:
    source = FakeSource(numbered(6))
    sink = DisplaySink(source, frame_of)
    for index, picture in enumerate(numbered(6)):
        sink.write(result_of(picture, index, index / 25))
    sink.close()
    sink.close()
    assert [number for number, _ in screen.shown] == list(range(6))
    assert screen.shown[5][1] - screen.shown[0][1] >= 0.15
    assert screen.threads == {"fasterseg-display"}
    assert screen.opened == [("fasterseg: fake", Size(64, 96))]
    assert screen.destroyed == 1


def test_live_pictures_are_not_held_back(screen: Screen) -> None:
    source = FakeSource(numbered(1))
    source.live = True
    sink = DisplaySink(source, frame_of)
    started = time.perf_counter()
    for index, picture in enumerate(numbered(5)):
        sink.write(result_of(picture, index, index * 10.0))
    sink.close()
    assert len(screen.shown) == 5
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("way", ["q", "escape", "closed"])
def test_closing_the_window_ends_the_run(screen: Screen, way: str) -> None:
    if way == "closed":
        screen.visible = False
    else:
        screen.keys = [-1, ord("q") if way == "q" else 27]
    source = FakeSource(numbered(30))
    sinks = open_sinks("display:", ["overlay"], source, CAMVID)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(source, Segmenter(lambda size: StandIn()), sinks)
    assert len(screen.shown) <= 2
    assert screen.destroyed == 1


def test_each_picture_of_a_set_stays_until_a_key(screen: Screen) -> None:
    screen.keys = [-1, -1, ord("n"), -1, ord("n")]
    source = FakeSource(numbered(2))
    source.kind = "images"
    sink = DisplaySink(source, frame_of)
    for picture in numbered(2):
        sink.write(result_of(picture))
    sink.close()
    assert [number for number, _ in screen.shown] == [0, 1]
    assert screen.keys == []


def test_large_frames_get_a_window_that_fits_a_screen(screen: Screen) -> None:
    sink = DisplaySink(FakeSource([]), frame_of)
    sink.write(result_of(solid((0, 0, 0), Size(2160, 3840))))
    sink.close()
    assert screen.opened[0][1] == Size(900, 1600)


def test_without_results_no_window_is_opened(screen: Screen) -> None:
    DisplaySink(FakeSource([]), frame_of).close()
    assert (screen.opened, screen.destroyed) == ([], 0)


def test_fault_of_the_toolkit_is_raised(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(title: str, image: Any) -> None:
        raise cv2.error("connection to the screen lost")

    monkeypatch.setattr(cv2, "imshow", broken)
    sink = DisplaySink(FakeSource([]), frame_of)
    results = (result_of(solid((0, 0, 0)), index) for index in range(9))
    with pytest.raises(OutputError, match=r"cannot show .*screen lost"):
        deque(map(sink.write, results), maxlen=0)
    sink.close()


@pytest.fixture
def _unprobed() -> Iterator[None]:
    display_problem.cache_clear()
    yield
    display_problem.cache_clear()


@pytest.mark.usefixtures("_unprobed")
def test_opencv_without_windows_names_the_package_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def headless() -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "destroyAllWindows", headless)
    problem = display_problem()
    assert problem is not None
    assert "pip install opencv-python" in problem
    assert "out.mp4" in problem


@pytest.mark.usefixtures("_unprobed")
def test_no_screen_is_told_without_asking_the_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    problem = display_problem()
    assert problem is not None
    assert "DISPLAY" in problem


@pytest.mark.usefixtures("_unprobed")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(0)", None),
        ("import os; os.write(2, b'cannot connect to X'); os.abort()", "cannot connect to X"),
        ("import time; time.sleep(60)", "no answer within"),
    ],
)
def test_toolkit_is_tried_in_a_child_that_may_die(
    monkeypatch: pytest.MonkeyPatch, code: str, expected: str | None
) -> None:
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(sinks_display, "_PROBE", code)
    monkeypatch.setattr(sinks_display, "_PROBE_S", 0.5 if "sleep" in code else 30.0)
    problem = display_problem()
    assert (problem is None) == (expected is None)
    assert problem is None or (expected is not None and expected in problem)


def test_probe_is_what_a_window_needs() -> None:
    """The child fails where OpenCV has no windows or no screen, and says why."""
    child = subprocess.run(
        [sys.executable, "-c", sinks_display._PROBE], capture_output=True, check=False, timeout=60
    )
    assert (child.returncode == 0) == (display_problem() is None)
