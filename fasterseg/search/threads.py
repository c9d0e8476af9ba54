"""Torch's threads: a fixed number, or as many as other processes leave idle cores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from fasterseg.errors import UsageError

PROC_STAT: Final = Path("/proc/stat")
TOLERATED: Final = 0.35
"""Share of a core that others may use before it is left to them."""


class IdleCores:
    """Counts the cores that other processes left idle since it was last asked (Linux).

    With as many threads as cores, every parallel loop waits for the thread whose core is taken
    by another process: one core that is half busy makes a step several times slower.

    Args:
        stat: file in the format of /proc/stat.
    """

    def __init__(self, stat: Path = PROC_STAT) -> None:
        self._stat = stat
        self._cores = len(os.sched_getaffinity(0))
        self._last = self._read()

    def _read(self) -> tuple[float, float]:
        """Seconds on the clock; seconds of work of all other processes on all cores."""
        fields = self._stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        ticks = [int(field) for field in fields]
        idle = ticks[3] + ticks[4]
        busy_s = (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy_s - time.process_time()

    def count(self) -> int:
        """Cores free for us, 1 at least."""
        now = self._read()
        seconds = max(0.02, now[0] - self._last[0])
        others = (now[1] - self._last[1]) / seconds
        self._last = now
        taken = int(others + 1 - TOLERATED)
        return max(1, min(self._cores, self._cores - taken))


def use_threads(count: int) -> None:
    """Let torch compute on that many threads."""
    torch.set_num_threads(count)


def thread_count() -> int:
    """Threads that torch computes on now."""
    return torch.get_num_threads()


def follow_idle_cores() -> Callable[[], None]:
    """A function that, whenever it is called, gives torch a thread per idle core.

    Raises:
        UsageError: the system does not tell (no /proc/stat).
    """
    if not PROC_STAT.exists():
        raise UsageError(f"--polite needs {PROC_STAT}, which only Linux has; use --threads")
    idle = IdleCores()
    return lambda: use_threads(idle.count())
