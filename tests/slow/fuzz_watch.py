"""What a case leaves behind: threads, open files, temporary files."""

from __future__ import annotations

import contextlib
import gc
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LEAVE_S = 8.0
"""Seconds in which threads that nobody waits for must have ended: they end with their last read."""
LOOK_S = 0.02


class Watch:
    """Looks at what is there before a case, and at what is there after it.

    Args:
        case: folder of its own that each case gets, empty.
        temporary: empty folder that temporary files go to.
    """

    def __init__(self, case: Path, temporary: Path) -> None:
        self.case = case
        self._temporary = temporary

    def begin(self) -> None:
        """Give the next case an empty folder."""
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        self._threads = set(threading.enumerate())
        self._open = _open_files()

    def left(self) -> Iterator[str]:
        """What the case left, one sentence each; waits a while for what is about to end."""
        until_s = time.monotonic() + LEAVE_S
        while (self._new_threads() or self._more_open()) and time.monotonic() < until_s:
            # What only the collector closes is closed late, but not left.
            gc.collect()
            time.sleep(LOOK_S)
        if threads := self._new_threads():
            yield f"threads are left: {', '.join(thread.name for thread in threads)}"
        if more := self._more_open():
            yield f"open files are left: {', '.join(more)}"
        files = [*self._temporary.iterdir(), *self.case.rglob("*.tmp")]
        for file in files:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
            yield f"a temporary file is left: {file.name}"

    def _new_threads(self) -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one not in self._threads]

    def _more_open(self) -> list[str]:
        """What is open now and was not before, where more is open than before."""
        now = _open_files()
        new = now.keys() - self._open.keys()
        return sorted(now[fd] for fd in new) if len(now) > len(self._open) else []


def _open_files() -> dict[str, str]:
    """Descriptor -> what it is open on."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        # The one of this very listing has gone.
        with contextlib.suppress(OSError):
            found[fd.name] = str(fd.readlink())
    return found
