"""The log of a run: JSON lines that a resumed run continues without gap or repetition."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from fasterseg.cache import write_atomic
from fasterseg.config import parse_json
from fasterseg.errors import OutputError, SourceError

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


class Listener(Protocol):
    """Is told what the journal is told."""

    def write(self, record: dict[str, Any]) -> None:
        """Take a record."""

    def trim(self, step: int) -> None:
        """Forget what came after a step."""


class Journal:
    """One JSON object per line, each with its "step".

    Args:
        folder: of the run.

    Attributes:
        path: the log.
        listeners: who hears of every record, after it is in the log.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.listeners: list[Listener] = []

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
        for listener in self.listeners:
            listener.write(record)

    def trim(self, step: int) -> None:
        """Forget what came after a step, and a last line that a kill cut short.

        Raises:
            OutputError: it cannot be written.
            SourceError: it cannot be read.
        """
        if self.path.exists():
            kept = [line for line in _lines(self.path) if _step_of(line) <= step]
            write_atomic(self.path, b"".join(line + b"\n" for line in kept))
        for listener in self.listeners:
            listener.trim(step)

    def read(self) -> list[dict[str, Any]]:
        """Every whole record so far; none where there is no log.

        Raises:
            SourceError: it cannot be read.
        """
        return read_log(self.path)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a log, earliest first; lines that a kill cut short or damaged are left out.

    Raises:
        SourceError: it cannot be read.
    """
    lines = _lines(path) if path.exists() else []
    return [parse_json(line) for line in lines if _step_of(line) < math.inf]


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


def _step_of(line: bytes) -> float:
    """Step of a record; infinite for a line that is none."""
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
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
