"""`Scored`: a network with its latency and its score; and which of many no other one beats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from fasterseg.arch.genotype import Genotype
from fasterseg.config import from_mapping

How = Literal["evolve", "random", "hand", "given"]
"""What came upon a network."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A network that was scored.

    Attributes:
        genotype: the network.
        digest: its own.
        ms: predicted latency.
        miou: score, in [0, 1] where it is a mean IoU.
        how: what came upon it.
        round: generation of an evolution, or batch of a random search, from 0.
        target_ms: latency that was searched for.
    """

    genotype: Genotype
    digest: str
    ms: float
    miou: float
    how: How
    round: int
    target_ms: float

    @property
    def rank(self) -> tuple[float, float, str]:
        """Better networks have lower ranks: by score, then latency, then digest."""
        return (-self.miou, self.ms, self.digest)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; `from_json` is the inverse."""
        return {
            "digest": self.digest,
            "how": self.how,
            "round": self.round,
            "ms": self.ms,
            "miou": self.miou,
            "target_ms": self.target_ms,
            "genotype": self.genotype.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "scored network") -> Scored:
        """Rebuild from `to_json`; `where` names the origin in errors.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        return from_mapping(data, cls, where)


def best_first(scored: Iterable[Scored]) -> list[Scored]:
    """Every network once, the best one first; ties go to the faster, then to the lower digest."""
    found: dict[str, Scored] = {}
    for one in sorted(scored, key=lambda one: one.rank):
        found.setdefault(one.digest, one)
    return list(found.values())


def pareto(scored: Iterable[Scored]) -> list[Scored]:
    """The networks that no other one equals or beats in both latency and score, fastest first."""
    front: list[Scored] = []
    for one in sorted(scored, key=lambda one: (one.ms, *one.rank)):
        if not front or one.miou > front[-1].miou:
            front.append(one)
    return front
