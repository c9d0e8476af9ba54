"""Engines of foreign networks: what they say of themselves, and files that plans are built from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import fasterseg
from fasterseg.graph.foreign import Contract, Foreign
from fasterseg.labels import LabelSet
from fasterseg.runtime.base import EngineSpec

_AS_IT_IS: Final = ((0.0, 0.0, 0.0), (1 / 255,) * 3)
"""Mean and deviation that leave bytes the values they have."""


def describe_foreign(
    network: Foreign,
    contract: Contract,
    name: str,
    labels: LabelSet,
    sha256: str,
    output: Literal["labels", "logits8"] = "labels",
) -> EngineSpec:
    """The spec of a foreign network behind our boundary.

    Args:
        network: at its size.
        contract: what it wants of its input.
        name: what it is called.
        labels: its classes.
        sha256: of the network, see `graph.foreign.digest`.
        output: what the engine gives.
    """
    takes_bytes = network.input_type == "UINT8"
    mean, std = _AS_IT_IS if takes_bytes else (contract.mean, contract.std)
    return EngineSpec(
        name=name,
        labels=labels,
        size=network.size,
        batch=network.batch,
        precision=network.precision,
        output=output,
        genotype=None,
        channel_order=contract.channel_order,
        mean=mean,
        std=std,
        source_sha256=sha256,
        fasterseg_version=fasterseg.__version__,
    )


@dataclass(frozen=True, slots=True)
class Exported:
    """An ONNX engine file that plans are built from, in the place of a model.

    Attributes:
        file: where it lies.
        spec: what it says of itself.
        data: its content.
    """

    file: Path
    spec: EngineSpec
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What the engine is called."""
        return self.spec.name

    @property
    def trained(self) -> bool:
        """Whether the weights were trained."""
        return self.spec.trained

    @property
    def source_sha256(self) -> str:
        """SHA-256 (hex) of the network it was made from."""
        return self.spec.source_sha256

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file."""
        return hashlib.sha256(self.data).hexdigest()
