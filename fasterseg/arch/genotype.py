"""`Genotype`: a derived network as a value that can be stored, compared and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from fasterseg.arch.operators import CANDIDATES
from fasterseg.config import from_mapping
from fasterseg.errors import ConfigError

Rate = Literal[8, 16, 32]

MINIMUM_WIDTH = 4
MAXIMUM_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch: a path of cells from 1/8 of the input size to its own final scale.

    Attributes:
        ops: operator of each cell.
        strides: down-sampling rate at which each cell's *input* lives (8, 16 or 32); a cell is
            strided when the next cell's rate is coarser.
        widths: one less than cells, each in twelfths (4 to 12): channels after cell i are
            `strides[i + 1] * widths[i]`. The last cell gives `strides[-1] * head_width`.

    Raises:
        ConfigError: the three do not describe a path.
    """

    ops: tuple[str, ...]
    strides: tuple[Rate, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        unknown_ops = sorted(set(self.ops) - set(CANDIDATES))
        if unknown_ops:
            raise ConfigError(f"unknown operators {unknown_ops}; known: {', '.join(CANDIDATES)}")
        if not self.ops or len(self.strides) != len(self.ops):
            raise ConfigError(
                f"a branch needs one stride per cell: {len(self.ops)} ops, "
                f"{len(self.strides)} strides"
            )
        if len(self.widths) != len(self.ops) - 1:
            raise ConfigError(
                f"a branch of {len(self.ops)} cells needs {len(self.ops) - 1} widths, "
                f"not {len(self.widths)}"
            )
        if self.strides[0] != 8 or any(
            after not in (before, 2 * before)
            for before, after in zip(self.strides, self.strides[1:], strict=False)
        ):
            raise ConfigError(
                f"strides {list(self.strides)} are not a path: they start at 8 and each is the "
                "one before or twice it"
            )
        for width in self.widths:
            check_width("width", width)

    @property
    def final_rate(self) -> Rate:
        """Down-sampling rate of the branch's last map."""
        return self.strides[-1]

    def next_rate(self, cell: int) -> Rate:
        """Down-sampling rate after a cell; the last cell keeps its rate."""
        return self.strides[min(cell + 1, len(self.strides) - 1)]


def check_width(name: str, width: int) -> None:
    """Refuse a width that is not 4 to 12 twelfths.

    Raises:
        ConfigError: it is not.
    """
    if not MINIMUM_WIDTH <= width <= MAXIMUM_WIDTH:
        raise ConfigError(
            f"{name} {width} is not between {MINIMUM_WIDTH} and {MAXIMUM_WIDTH} (twelfths)"
        )


@dataclass(frozen=True, slots=True)
class Genotype:
    """A whole network.

    Attributes:
        name: for people; not part of the digest.
        num_classes: classes of the head, 1 to 127.
        stem_width: width of the stem in twelfths; its output has `8 * stem_width` channels.
        head_width: width of merges and heads in twelfths.
        branches: at least one; a branch reaches 1/8, 1/16 or 1/32.
        upsample: resampling of every resize inside the network.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str
    num_classes: int
    stem_width: int
    head_width: int
    branches: tuple[Branch, ...]
    upsample: Literal["bilinear"] = "bilinear"

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= 127:
            raise ConfigError(f"num_classes {self.num_classes} is not between 1 and 127")
        check_width("stem_width", self.stem_width)
        check_width("head_width", self.head_width)
        if not self.branches:
            raise ConfigError("a genotype needs at least one branch")

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; `from_json` is the inverse."""
        return cast("dict[str, Any]", json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "genotype") -> Genotype:
        """Rebuild from `to_json`; `where` names the origin in errors.

        Raises:
            ConfigError: a key is unknown or missing, or a value does not fit.
        """
        return from_mapping(data, cls, where)

    def digest(self) -> str:
        """SHA-256 (hex) of everything but the name."""
        fields = self.to_json()
        del fields["name"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def with_classes(self, num_classes: int, name: str | None = None) -> Genotype:
        """The same network with another number of classes, and another name if given."""
        return replace(self, num_classes=num_classes, name=name or self.name)
