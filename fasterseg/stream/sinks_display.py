"""Overlays in a window, where OpenCV has one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import OutputError
from fasterseg.stream.readahead import Channel, Worker
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sources import FrameSource

_LARGEST: Final = (1600, 900)
"""Width and height that a window has at most when it opens."""
_TICK_MS: Final = 20
_LEAVE: Final = frozenset({27, ord("q")})
_PROBE: Final = "import cv2; cv2.namedWindow('fasterseg'); cv2.destroyAllWindows()"
_PROBE_S: Final = 30.0
_INSTEAD: Final = "give a file instead, for example out.mp4"


@lru_cache(maxsize=1)
def display_problem() -> str | None:
    """Why no window can be opened here, with the remedy; None where one can."""
    try:
        cv2.destroyAllWindows()
    except cv2.error:
        return (
            "display: needs OpenCV with windows, and the one installed has none. Replace it: "
            "pip uninstall -y opencv-python-headless && pip install opencv-python; or "
            f"{_INSTEAD}"
        )
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return (
            "display: there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set). Log in "
            f"with one (ssh -X), or {_INSTEAD}"
        )
    # A toolkit that cannot reach its screen ends the whole program: a child finds out.
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=False
        )
        reason = probe.stderr.decode(errors="replace").strip().splitlines()[-1:]
        failed = probe.returncode != 0
    except subprocess.TimeoutExpired:
        reason, failed = [f"no answer within {_PROBE_S:.0f} s"], True
    if not failed:
        return None
    return (
        f"display: a window cannot be opened ({' '.join(reason) or 'the toolkit gave up'}). "
        f"Check DISPLAY and your right to use it (xhost), or {_INSTEAD}"
    )


class DisplaySink:
    """Shows results in a window; Esc, q or closing it ends the run.

    Frames of a file are shown at the times they have in it, never faster; each picture of a set
    stays until a key is pressed. All calls of the toolkit are made in one thread of its own.

    Args:
        source: what the results come from; gives the title and the pace.
        draw: result -> (H, W, 3) uint8 BGR.
    """

    def __init__(
        self, source: FrameSource, draw: Callable[[SegmentationResult], NDArray[np.uint8]]
    ) -> None:
        self.paths: list[Path] = []
        self._title = f"fasterseg: {source.name}"
        self._draw = draw
        self._stills = source.kind in ("image", "images")
        self._paced = not source.live
        self._channel: Channel[tuple[NDArray[np.uint8], float]] = Channel(1)
        self._worker = Worker("display", self._run)
        self._started_s: float | None = None

    def write(self, result: SegmentationResult) -> None:
        """Show one result, after those before it.

        Raises:
            KeyboardInterrupt: the user has closed the window.
            OutputError: the window was lost.
        """
        if self._started_s is None:
            self._started_s = time.perf_counter() - result.timestamp_s
            self._worker.start()
        if not self._channel.put((self._draw(result), result.timestamp_s)):
            self._worker.join()
            raise self._worker.error or KeyboardInterrupt

    def close(self) -> None:
        """Close the window, after what is left was shown."""
        self._channel.finish()
        if self._started_s is not None:
            self._worker.join()

    def _run(self) -> None:
        opened = False
        try:
            for image, timestamp_s in self._channel:
                if not opened:
                    self._open(image)
                    opened = True
                cv2.imshow(self._title, image)
                if not self._stay(timestamp_s):
                    return
        except cv2.error as error:
            raise OutputError(
                f"cannot show {self._title} in a window any more: {error}; {_INSTEAD}"
            ) from error
        finally:
            self._channel.cancel()
            if opened:
                cv2.destroyAllWindows()

    def _open(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(self._title, max(1, round(width * scale)), max(1, round(height * scale)))

    def _stay(self, timestamp_s: float) -> bool:
        """Keep the picture up for as long as it is due; False when the user wants no more."""
        assert self._started_s is not None
        due_s = self._started_s + timestamp_s if self._paced else 0.0
        while True:
            left_ms = round((due_s - time.perf_counter()) * 1e3)
            key = cv2.waitKey(min(max(left_ms, 1), _TICK_MS)) & 0xFF
            gone = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
            if gone or key in _LEAVE:
                return False
            if self._stills:
                if key != 0xFF:
                    return True
            elif left_ms <= _TICK_MS:
                return True
