"""`Position`: where a run stands, besides its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Position:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        seconds: spent on them, over all resumed stretches.
        lr_factor: what the learning rate is multiplied by since numbers were not finite.
        rollbacks: how often they were not.
        history: for every stretch the step it began at, where its weights came from ("init",
            "teacher") and what it ran on.
        teacher_miou: of the teacher on the evaluated pictures, in [0, 1]; None without one.
        caught_up: whether the network has equalled its teacher, which ended the distillation.
    """

    step: int = 0
    seconds: float = 0.0
    lr_factor: float = 1.0
    rollbacks: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    teacher_miou: float | None = None
    caught_up: bool = False

    def begin_stretch(self, provenance: dict[str, Any]) -> None:
        """Note where the run goes on, if anything is different from the stretch before."""
        before = {**self.history[-1], "step": 0} if self.history else None
        if {**provenance, "step": 0} != before:
            self.history.append({"step": self.step, **provenance})
