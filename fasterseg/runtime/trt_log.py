"""What TensorRT says while it works: its logger, of which errors are kept, and its progress.

TensorRT answers failure with None or False; the reason is in the logger only.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from fasterseg import interrupts
from fasterseg.runtime.trt_surface import Api

_LOG: Final = logging.getLogger(__name__)
_KEPT: Final = 8
_LEVELS: Final = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
}
NOTHING_SAID: Final = "the runtime gave no reason"


class Messages:
    """The last errors of a TensorRT object."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT)

    def add(self, severity: str, text: str) -> None:
        """Take one message; `severity` is the name of the logger's level."""
        level = _LEVELS.get(severity, logging.DEBUG)
        if level == logging.ERROR:
            self._errors.append(" ".join(text.split()))
        _LOG.log(min(level, logging.INFO), "%s", text)

    def clear(self) -> None:
        """Forget: what comes next is about something else."""
        self._errors.clear()

    @property
    def last(self) -> str:
        """The newest error, on one line."""
        return self._errors[-1] if self._errors else NOTHING_SAID

    @property
    def all(self) -> tuple[str, ...]:
        """The newest errors, oldest first."""
        return tuple(self._errors)


def new_logger(api: Api, messages: Messages) -> Any:
    """An `ILogger` that passes everything on to `messages`."""
    base: Any = api.ILogger

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            messages.add(severity.name, message)

    return Logger()


def new_monitor(
    api: Api,
    on_note: Callable[[str], None],
    every_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """An `IProgressMonitor` that tells now and then how far a build is, and ends it on Ctrl-C.

    Args:
        api: the module.
        on_note: gets the lines.
        every_s: seconds between two of them.
        clock: seconds.
    """
    base: Any = api.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}
            self._start = self._told = clock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = clock()
            if now - self._told >= every_s:
                self._told = now
                on_note(
                    f"building: {now - self._start:.0f} s, {phase_name} {step + 1} of "
                    f"{self._steps.get(phase_name, step + 1)}"
                )
            return not interrupts.came()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
