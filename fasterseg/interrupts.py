"""Ctrl-C and its kin: asked to end, a program closes its files; asked twice, it ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
"""Exit code of a program that was asked to end, by whichever signal."""

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a signal like it. Python ends programs by SIGINT after the plain kind alone."""


_came = False
_holders: list[Callable[[], None]] = []


def install() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise Interrupted once, and end the process after that.

    A signal that the process was started to ignore (nohup, background jobs) stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def ignore() -> None:
    """Let nothing interrupt a program any more whose exit code is settled."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def came() -> bool:
    """Whether a signal has come since `install`."""
    return _came


@contextlib.contextmanager
def deferred(wake: Callable[[], None]) -> Iterator[None]:
    """Hold a signal back while files are open: `Interrupted` comes at the end of the block.

    An exception that may come at any line leaves locks taken and files without their end. In
    here the signal only calls `wake`, which is to make the block end soon. Where another exception
    leaves the block, that one goes on instead. Does nothing outside the main thread, where
    signals never arrive, and none before `install`.

    Args:
        wake: called in the middle of whatever the main thread is doing; must not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _holders.append(wake)
    came_before = _came
    try:
        yield
    finally:
        _holders.remove(wake)
    if _came and not came_before:
        raise Interrupted


def _handle(number: int, frame: FrameType | None) -> None:
    global _came
    if _came:
        os._exit(INTERRUPTED)
    _came = True
    if not _holders:
        raise Interrupted
    for wake in _holders:
        wake()
