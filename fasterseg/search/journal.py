"""The log of a run: JSON lines that a resumed run continues without gap or repetition."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fasterseg.cache import write_atomic
from fasterseg.errors import OutputError

LOG: Final = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        steps: optimiser steps of the whole run.
        loss: mean total loss since the last report; NaN before the first.
        lr: mean learning rate since the last report.
        images_per_s: training crops per second since the last report.
        eta_s: seconds to the end of the run at this speed.
        val_miou: of the averaged weights in [0, 1], where they have just been evaluated.
    """

    step: int
    steps: int
    loss: float = math.nan
    lr: float = 0.0
    images_per_s: float = 0.0
    eta_s: float = math.inf
    val_miou: float | None = None


class Journal:
    """One JSON object per line, each with its "step".

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def write(self, record: dict[str, Any]) -> None:
        """Append a record.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def trim(self, step: int) -> None:
        """Forget what came after a step, and a last line that a kill cut short.

        Raises:
            OutputError: it cannot be written.
        """
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            write_atomic(self.path, "".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return math.inf


class Meter:
    """Means over the steps since it was last read, and their speed."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._started_at = time.monotonic()

    def add(self, values: dict[str, float]) -> None:
        """Count one step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def read(self) -> tuple[dict[str, float], float]:
        """Means by name and steps per second; starts anew."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        speed = self._steps / max(1e-9, time.monotonic() - self._started_at)
        self._reset()
        return means, speed
