"""`TrainSplit`: which training pictures settle weights, which the architecture, which the score.

A search never looks at the val or test split: it divides the train split once more. A picture's
part follows from the hash of its own name, so neither order nor pictures that are added later
move one from part to part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from fasterseg.config import from_mapping
from fasterseg.datasets import Pair
from fasterseg.errors import ConfigError, SourceError, UsageError

Part = Literal["weights", "architecture", "held_out"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

HELD_OUT: Final = 0.2
"""Share of the train split that networks of a search are scored on."""

ARCHITECTURE: Final = 0.4
"""Share that the logits of a differentiable search learn from; evolution needs none."""

_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """Names of the training pictures, by what they are for.

    Neighbouring frames of a video look alike and may fall into different parts, so scores on
    `held_out` are optimistic; they rank networks, and are not to be published.

    Attributes:
        weights: weights are trained on these.
        architecture: the logits of a differentiable search are.
        held_out: networks are scored on these.

    Raises:
        ConfigError: a name is in two parts, or twice in one.
    """

    weights: tuple[str, ...]
    architecture: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [*self.weights, *self.architecture, *self.held_out]
        if len(set(names)) < len(names):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            raise ConfigError(
                f"a split of the training pictures names {', '.join(twice[:_SHOWN])} twice; split "
                "them anew"
            )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; `from_json` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "split") -> TrainSplit:
        """Rebuild from `to_json`; `where` names the origin in errors.

        Raises:
            ConfigError: a key is unknown or missing, or a name is there twice.
        """
        return from_mapping(data, cls, where)

    def select(self, pairs: Sequence[Pair], part: Part) -> list[Pair]:
        """The pairs of one part, in the order given; pairs that the split does not name are left.

        Args:
            pairs: the train split of the data set.
            part: which of its parts.

        Raises:
            SourceError: the data set lacks pictures of that part.
        """
        wanted = set(getattr(self, part))
        missing = sorted(wanted - {pair.name for pair in pairs})
        if missing:
            raise SourceError(
                f"{len(missing)} of {len(wanted)} {part.replace('_', '-')} pictures of this search "
                f"are no longer in the train split: {', '.join(missing[:_SHOWN])}. Put them back, "
                "or begin the search in another folder"
            )
        return [pair for pair in pairs if pair.name in wanted]


def split_train(
    pairs: Sequence[Pair], held_out: float = HELD_OUT, architecture: float = ARCHITECTURE
) -> TrainSplit:
    """Divide the pairs of a train split by the SHA-256 of their names.

    The held-out pictures do not depend on the share of the architecture's.

    Args:
        pairs: the train split; no other belongs here.
        held_out: share of the pictures that networks are scored on, above 0.
        architecture: share for the logits of a differentiable search; 0 gives them to the weights.

    Raises:
        UsageError: the shares leave nothing for the weights, or a part with a share got no picture.
    """
    if not (held_out > 0 and architecture >= 0 and held_out + architecture < 1):
        raise UsageError(
            f"shares {held_out:g} (held out) and {architecture:g} (architecture) of the training "
            "pictures: the first must be above 0, and some must be left for the weights"
        )
    found: dict[Part, list[str]] = {part: [] for part in PARTS}
    for pair in pairs:
        position = _position(pair.name)
        if position < held_out:
            found["held_out"].append(pair.name)
        elif position < held_out + architecture:
            found["architecture"].append(pair.name)
        else:
            found["weights"].append(pair.name)
    _check_filled(found, {"held_out": held_out, "architecture": architecture, "weights": 1.0})
    return TrainSplit(**{part: tuple(sorted(names)) for part, names in found.items()})


def _check_filled(found: Mapping[Part, Sequence[str]], shares: Mapping[Part, float]) -> None:
    empty = [part for part in PARTS if shares[part] > 0 and not found[part]]
    if empty:
        raise UsageError(
            f"none of {sum(map(len, found.values()))} training pictures falls into "
            f"{' and '.join(empty)}; use more pictures, or give it a larger share"
        )


def _position(name: str) -> float:
    """A place in [0, 1) that follows from the name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    # 53 bits are what a float holds exactly.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
