"""What pulls the student's latency: a constraint on the target, or the original's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError
from fasterseg.search.cosettings import CoSearchSettings
from fasterseg.search.cost import ExpectedLatency
from fasterseg.search.derive import derive_genotype
from fasterseg.search.mixture_logits import ArchLogits, Relaxed
from fasterseg.search.mixture_widths import Widths
from fasterseg.search.original_cost import OriginalLatency, regulariser
from fasterseg.search.parameters import ArchParameters

MEMORY: Final = 0.9
"""Share of the past in the running norms of gradients."""

Gradients = Mapping[str, Sequence[Tensor]]
"""Kind of logits ("alpha", "beta", "ratio") -> gradients of its tensors."""


class Pull(Protocol):
    """Adds latency to the gradients of the student's logits."""

    def __call__(
        self, arch: ArchLogits, relaxed: Relaxed, widths: Widths, gradients: Gradients
    ) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
        """The gradients with latency, and figures to report.

        Args:
            arch: the student's logits.
            relaxed: their probabilities, with gradient.
            widths: chosen by them, with gradient.
            gradients: of the segmentation loss.
        """

    def end_epoch(self, parameters: ArchParameters) -> None:
        """Take note of the logits at the end of an epoch."""

    def state(self) -> dict[str, Any]:
        """What the next steps depend on, as numbers."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""


@dataclass
class _Norms:
    """Running norms of the gradients of one kind of logits."""

    loss: float = 0.0
    latency: float = 0.0

    def see(self, loss: float, latency: float) -> float:
        """Take new norms; gives what makes the latency's as large as the loss's."""
        for name, value in (("loss", loss), ("latency", latency)):
            before: float = getattr(self, name)
            setattr(self, name, MEMORY * before + (1 - MEMORY) * value if before else value)
        # Without a segmentation loss, or where latency does not depend on the kind: as it is.
        return self.loss / self.latency if self.loss > 0 and self.latency > 0 else 1.0


class TargetPull:
    """Drives the expected latency of the student's slowest set of branches to a target.

    The distance is h = ms / target - 1. "lagrangian" minimises m h + s h^2 / 2 with a multiplier
    m that follows s * dual_rate * h (augmented Lagrangian), "absolute" s |h| (TuNAS, CVPR 2020).
    Each kind of logits sees the latency's gradient at the scale of its own segmentation gradient,
    in place of the paper's constants for the kinds.

    Args:
        settings: of the search.
        latency: of the student's space.

    Attributes:
        multiplier: m; negative where the network should become slower.
    """

    def __init__(self, settings: CoSearchSettings, latency: ExpectedLatency) -> None:
        self.settings = settings
        self.latency = latency
        self.multiplier = 0.0
        self._norms = {kind: _Norms() for kind in ("alpha", "beta", "ratio")}

    def __call__(
        self, arch: ArchLogits, relaxed: Relaxed, widths: Widths, gradients: Gradients
    ) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
        """See `Pull`."""
        groups = arch.groups()
        ms = self.latency(groups["alpha"], groups["beta"], groups["ratio"]).max()
        distance = float(ms.detach()) / self.settings.target_ms - 1
        weight = self._weight(distance)
        flat = [one for rows in groups.values() for one in rows]
        slopes = iter(gradient(ms / self.settings.target_ms, flat))
        pulled: dict[str, list[Tensor]] = {}
        for kind, rows in groups.items():
            own = [next(slopes) for _ in rows]
            scale = self._norms[kind].see(norm(gradients[kind]), norm(own))
            pulled[kind] = [
                loss + weight * scale * slope
                for loss, slope in zip(gradients[kind], own, strict=True)
            ]
        return pulled, {"latency_ms": float(ms.detach()), "multiplier": weight}

    def _weight(self, distance: float) -> float:
        strength = self.settings.strength
        if self.settings.penalty == "absolute":
            return math.copysign(strength, distance)
        self.multiplier += self.settings.dual_rate * strength * distance
        return self.multiplier + strength * distance

    def end_epoch(self, parameters: ArchParameters) -> None:
        """Nothing happens here."""

    def state(self) -> dict[str, Any]:
        """See `Pull`."""
        norms = {kind: asdict(one) for kind, one in self._norms.items()}
        return {"multiplier": self.multiplier, "norms": norms}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Pull`."""
        self.multiplier = float(state["multiplier"])
        self._norms = {kind: _Norms(**one) for kind, one in state["norms"].items()}


class OriginalPull:
    """The original's regulariser, with a weight that the window of frame rates controls.

    Args:
        settings: of the search.
        space: the student's.
        table: of the device.
    """

    def __init__(self, settings: CoSearchSettings, space: SearchSpace, table: LatencyTable) -> None:
        self.settings = settings
        self.space = space
        self.table = table
        self.latency = OriginalLatency(space, table)
        self.weight = settings.latency_weight

    def __call__(
        self, arch: ArchLogits, relaxed: Relaxed, widths: Widths, gradients: Gradients
    ) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
        """See `Pull`."""
        on_cpu = Relaxed(
            *(
                tuple(one.cpu() for one in rows)
                for rows in (relaxed.alpha, relaxed.strided, relaxed.beta)
            )
        )
        factors = widths.factors and tuple(one.cpu() for one in widths.factors)
        drawn = Widths(widths.twelfths, factors)
        ms = regulariser(self.latency, on_cpu.alpha, on_cpu.beta, drawn)
        flat = [one for rows in arch.groups().values() for one in rows]
        slopes = iter(gradient(ms, flat))
        pulled = {
            kind: [loss + self.weight * next(slopes) for loss in gradients[kind]]
            for kind in arch.groups()
        }
        return pulled, {"latency_ms": float(ms.detach()), "multiplier": self.weight}

    def end_epoch(self, parameters: ArchParameters) -> None:
        """Halve the weight if a derived network is fast enough, double it if one is too slow."""
        slow, fast = self.settings.fps_window
        genotypes = [
            derive_genotype(parameters, rates, self.space, original=True)
            for rates in self.space.final_rates
        ]
        rates = [
            1000 / self.table.price(plan(one, self.table.size), allow_upsample_mismatch=True).ms
            for one in genotypes
        ]
        if max(rates) >= fast:
            self.weight /= 2
        elif min(rates) <= slow:
            self.weight *= 2

    def state(self) -> dict[str, Any]:
        """See `Pull`."""
        return {"weight": self.weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Pull`."""
        self.weight = float(state["weight"])


class NoPull:
    """Latency counts for nothing."""

    def __call__(
        self, arch: ArchLogits, relaxed: Relaxed, widths: Widths, gradients: Gradients
    ) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
        """See `Pull`."""
        return {kind: list(rows) for kind, rows in gradients.items()}, {}

    def end_epoch(self, parameters: ArchParameters) -> None:
        """Nothing happens here."""

    def state(self) -> dict[str, Any]:
        """See `Pull`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Pull`."""


def make_pull(settings: CoSearchSettings, space: SearchSpace, table: LatencyTable | None) -> Pull:
    """The pull that the settings ask for.

    Args:
        settings: of the search.
        space: the student's.
        table: of the device; None only without a target.

    Raises:
        ConfigError: a target without a table.
        UsageError: the table does not fit the space.
        MissingLatencyError: rows are missing.
    """
    if settings.original and table is not None:
        return OriginalPull(settings, space, table)
    if settings.original or settings.target_ms == 0:
        return NoPull()
    if table is None:
        raise ConfigError(
            f"cosearch.target_ms = {settings.target_ms:g} needs the latency table of a device: "
            "measure one with fasterseg-bench ops, or set it to 0"
        )
    return TargetPull(settings, ExpectedLatency(space, table))


def gradient(value: Tensor, of: Sequence[nn.Parameter]) -> list[Tensor]:
    """Gradients on the tensors' devices, zeros where the value does not depend on one."""
    found = torch.autograd.grad(value, of, allow_unused=True)
    return [
        torch.zeros_like(one) if slope is None else slope
        for one, slope in zip(of, found, strict=True)
    ]


def norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm of some tensors together."""
    return math.sqrt(sum(float(one.square().sum()) for one in tensors))
