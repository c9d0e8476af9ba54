from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from fasterseg.errors import UsageError  # noqa: E402
from fasterseg.search import threads  # noqa: E402
from fasterseg.search.threads import IdleCores  # noqa: E402

pytestmark = pytest.mark.torch


class Machine:
    """A fake /proc/stat of four cores, and the clocks that go with it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = folder / "stat"
        self.now = self.ours = self.busy = 0.0
        patch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
        patch.setattr(os, "sysconf", lambda _: 100)
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(time, "process_time", lambda: self.ours)
        self.write()

    def write(self) -> None:
        idle = 4 * self.now - self.busy
        ticks = [int(100 * self.busy), 0, 0, int(100 * idle), 0, 0, 0, 0, 0, 0]
        self.path.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")

    def second(self, others: float, ours: float) -> None:
        self.now += 1
        self.ours += ours
        self.busy += others + ours
        self.write()


@pytest.mark.parametrize(
    ("others", "free"), [(0.0, 4), (0.2, 4), (0.5, 3), (1.0, 3), (1.9, 2), (3.0, 1), (4.0, 1)]
)
def test_cores_that_others_use_are_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float, free: int
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    idle = IdleCores(machine.path)
    machine.second(others=others, ours=4 - others)
    assert idle.count() == free


def test_only_the_time_since_the_last_call_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    idle = IdleCores(machine.path)
    machine.second(others=3.0, ours=1.0)
    assert idle.count() == 1
    machine.second(others=0.0, ours=1.0)
    assert idle.count() == 4


def test_a_system_that_does_not_tell_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PROC_STAT", tmp_path / "absent")
    with pytest.raises(UsageError, match="use --threads"):
        threads.follow_idle_cores()
