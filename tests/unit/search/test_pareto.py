from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from fasterseg.errors import ConfigError
from fasterseg.search.pareto import Scored, best_first, pareto
from fasterseg.search.subnets import random_subnet
from tests.unit.search.search_fakes import SPACE

GENOTYPE = random_subnet(SPACE, random.Random(0))


def scored(digest: str, ms: float, miou: float) -> Scored:
    return Scored(GENOTYPE, digest, ms, miou, "evolve", 0, 9.0)


def test_the_front_holds_what_nothing_equals_or_beats() -> None:
    everything = [
        scored("slow and bad", 9.0, 0.3),
        scored("fast", 4.0, 0.2),
        scored("middle", 6.0, 0.4),
        scored("as good but slower", 7.0, 0.4),
        scored("as fast but worse", 6.0, 0.35),
        scored("best", 8.0, 0.5),
        scored("best", 8.0, 0.5),
    ]
    for seed in range(4):
        mixed = random.Random(seed).sample(everything, len(everything))
        assert [one.digest for one in pareto(mixed)] == ["fast", "middle", "best"]
    assert pareto([]) == []


def test_ties_go_to_the_faster_then_to_the_lower_digest() -> None:
    a, b, c, d = scored("d", 2, 0.5), scored("a", 3, 0.5), scored("b", 3, 0.5), scored("c", 1, 0.4)
    assert best_first([d, c, b, a, a]) == [a, b, c, d]


def test_a_scored_network_survives_its_file() -> None:
    one = scored("x", 1.25, 0.1 + 0.2)
    assert Scored.from_json(json.loads(json.dumps(one.to_json()))) == one
    with pytest.raises(ConfigError, match="how: 'guess'"):
        Scored.from_json({**replace(one).to_json(), "how": "guess"})
