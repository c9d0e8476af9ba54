"""How the stages of a pipeline share the cores of a machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import cv2

from fasterseg.cores import usable_cores

FEW_CORES: Final = 4
"""Up to so many cores the pipeline's own threads keep all of them at work."""


class _Quiet:
    """Who wants OpenCV on one thread, and how many it had before the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._threads = 0

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._threads = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                cv2.setNumThreads(self._threads)


_QUIET: Final = _Quiet()


@contextmanager
def shared_cores(cores: int | None = None) -> Iterator[None]:
    """Keep OpenCV on one thread meanwhile, in the whole process, where cores are few.

    Decoder, engine, encoder and the stages between them already run side by side. Helpers of
    OpenCV would only take cores from them, and spin while they wait. Where there are more cores
    than stages, nothing is changed. May be nested and used by several threads: the last one to
    leave puts back what was there before.

    Args:
        cores: cores to share; None: those of this process.
    """
    if (usable_cores() if cores is None else cores) > FEW_CORES:
        yield
        return
    _QUIET.enter()
    try:
        yield
    finally:
        _QUIET.leave()
