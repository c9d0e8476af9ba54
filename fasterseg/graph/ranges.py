"""`Ranges`: how far each activation reaches on calibration frames, kept with the weights.

One file serves every size, stage and int8 profile: its keys are the names that the emitted graph
gives its values (`graph.precision.quantized_values`), and those depend on the network alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fasterseg.cache import write_atomic
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, WeightsError

SCHEMA: Final = 1
SUFFIX: Final = ".ranges.json"

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest activation of every value that int8 graphs hold in integers.

    Attributes:
        values: value name -> (low, high), low <= 0 <= high.
        weights_sha256: `graph.weights.weights_sha256` of the weights they were measured with.
        method: how a range follows from the activations ("minmax").
        frames: number of calibration frames.
        frames_sha256: hash of their pixels, in order.
        size: size they were run at, HxW.
        source: where they came from, for people.
        fasterseg: version that measured.
        schema: version of this file.
    """

    values: Mapping[str, Range]
    weights_sha256: str
    method: str
    frames: int
    frames_sha256: str
    size: str
    source: str
    fasterseg: str
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Lines of JSON; `from_json` is the inverse."""
        facts = asdict(self)
        values = facts.pop("values")
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(list(pair))}" for name, pair in values.items()
        )
        head = json.dumps(facts, indent=1).removesuffix("\n}")
        return f'{head},\n "values": {{\n{lines}\n }}\n}}\n'

    @property
    def sha256(self) -> str:
        """Hash (hex) of what an int8 graph takes from them."""
        plain = {name: list(pair) for name, pair in self.values.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def check(self, names: Iterable[str], weights_sha256: str) -> None:
        """Refuse ranges of other weights or another network.

        Args:
            names: values that the graph holds in integers.
            weights_sha256: hash of the graph's weights.

        Raises:
            WeightsError: they were measured with other weights, or lack values.
        """
        if self.weights_sha256 != weights_sha256:
            raise WeightsError(
                f"the activation ranges ({self.source}) belong to weights "
                f"{self.weights_sha256[:12]}, these are {weights_sha256[:12]}. Measure them "
                "again: fasterseg calibrate MODEL --images PATH"
            )
        if missing := sorted(set(names) - set(self.values)):
            raise WeightsError(
                f"the activation ranges ({self.source}) lack {len(missing)} values: "
                f"{', '.join(missing[:4])}. Measure them again: fasterseg calibrate MODEL "
                "--images PATH"
            )


def save_ranges(path: Path, ranges: Ranges) -> None:
    """Write a ranges file atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(path, ranges.to_json().encode())


def load_ranges(path: Path) -> Ranges:
    """Read a ranges file.

    Raises:
        WeightsError: it cannot be read, is no such file, or holds impossible ranges.
    """
    again = "Measure them again: fasterseg calibrate MODEL --images PATH"
    try:
        data: Any = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"cannot read activation ranges {path}: {error.strerror or error}. {again}"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}). {again}") from error
    if isinstance(data, dict) and data.get("schema") not in (None, SCHEMA):
        raise WeightsError(
            f"{path} holds ranges of schema {data['schema']}; this fasterseg reads {SCHEMA}. "
            "Upgrade: pip install -U fasterseg"
        )
    try:
        ranges = from_mapping(data, Ranges, str(path))
    except ConfigError as error:
        raise WeightsError(f"{error}. {again}") from error
    for name, (low, high) in ranges.values.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
            raise WeightsError(f"{path}: {name} reaches from {low} to {high}, which cannot be")
    return ranges
