"""What a fuzzed target is, and what all of them share."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Before anything imports ONNX Runtime, which otherwise reports to its makers now and then: sockets
# would come and go that no case opened.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Case = Callable[[np.random.Generator, Path], bool]
"""`case(random, folder)`: one input; tells whether it got past the header (or first check).

An error of ours is an answer as good as any; whatever else is raised is a fault.
"""

HIDDEN = "Hidden-0123456789"
"""Passwords and tokens of the cases; nothing that anybody is shown may hold it."""


@dataclass(frozen=True)
class Target:
    """One of the things that read what others wrote.

    Attributes:
        maker: `module:function` in this folder; prepares it once, and gives its cases.
        count: cases of a whole run.
        early: what errors of the first check say (is this JSON at all?); every other error of ours
            came from further in. None: every error counts as one of the first check.
        floor: least share of cases that must get past that check.
    """

    maker: str
    count: int
    early: re.Pattern[str] | None = None
    floor: float = 0.2

    def cases(self) -> AbstractContextManager[Case]:
        """Prepare it; imports what it needs, which is no other target's."""
        module, _, name = self.maker.partition(":")
        make: Callable[[], AbstractContextManager[Case]]
        make = getattr(importlib.import_module(f"tests.slow.{module}"), name)
        return make()


def chosen(random: np.random.Generator, *values: str) -> str:
    """One of these."""
    return values[int(random.integers(len(values)))]


def told(*texts: object) -> None:
    """What people are shown of a case.

    Raises:
        AssertionError: a secret is in it.
    """
    shown = [text for text in map(str, texts) if HIDDEN in text]
    assert not shown, f"a secret is shown: {shown}"
