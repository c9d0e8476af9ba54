"""What TensorRT says about a built engine, as the engine inspector or trtexec write it in JSON.

TensorRT 10 calls the tensors of the engine `Bindings` and gives each type as `Format/Datatype`; 11
calls them `I/O Tensors` and gives `Format` and `DataType`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fasterseg.config import parse_json
from fasterseg.errors import EngineMismatchError

_TENSORS: Final = ("I/O Tensors", "Bindings")
_TYPES: Final = ("DataType", "Datatype", "Format/Datatype", "Format/DataType")


@dataclass(frozen=True, slots=True)
class InspectedEngine:
    """A built engine, layer by layer.

    Attributes:
        tensors: names of what it takes and gives.
        kinds: kind of layer -> number; "unnamed" where only names were kept.
        types: type of a layer's output -> number of layers.
    """

    tensors: tuple[str, ...]
    kinds: Mapping[str, int]
    types: Mapping[str, int]

    @property
    def layers(self) -> int:
        """Number of layers after fusion: launches, roughly."""
        return sum(self.kinds.values())

    def to_json(self) -> dict[str, Any]:
        """For `fasterseg info`."""
        return {
            "fused layers": self.layers,
            "layer kinds": dict(self.kinds),
            "layer types": dict(self.types),
            "tensors": list(self.tensors),
        }


def read_inspector(path: Path) -> InspectedEngine:
    """Read a file of the inspector's JSON.

    Raises:
        EngineMismatchError: it is none.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        return _parsed(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineMismatchError(
            f"{path} is no output of TensorRT's engine inspector ({error}). Remove it, or write it "
            "again: trtexec --exportLayerInfo, or fasterseg build --overwrite"
        ) from error


def _parsed(data: Mapping[str, Any]) -> InspectedEngine:
    tensors: Sequence[Any] = next((data[key] for key in _TENSORS if key in data), ())
    layers = data["Layers"]
    detailed = [layer for layer in layers if isinstance(layer, Mapping)]
    kinds = Counter(str(layer.get("LayerType", "unnamed")) for layer in detailed)
    if len(detailed) < len(layers):
        kinds["unnamed"] += len(layers) - len(detailed)
    types = Counter(_type_of(output) for layer in detailed for output in layer.get("Outputs", ()))
    return InspectedEngine(tuple(map(_name_of, tensors)), dict(kinds), dict(types))


def _name_of(tensor: Any) -> str:
    return str(tensor["Name"]) if isinstance(tensor, Mapping) else str(tensor)


def _type_of(output: Any) -> str:
    if not isinstance(output, Mapping):
        return "unknown"
    return next((str(output[key]) for key in _TYPES if key in output), "unknown")
