"""`ArchParameters`: the logits a differentiable search learns, as plain arrays (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import ConfigError

Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class ArchParameters:
    """Architecture logits of one searched network, before any softmax.

    L layers, K candidate operators, W candidate widths; scale j = 0, 1, 2 is rate 1/8, 1/16,
    1/32. Layer l has cells at the scales up to l. The arrays are copied and made read-only, so
    that training on does not change a value that was taken.

    Attributes:
        alpha: operator logits per scale, (L, K), (L-1, K), (L-2, K): the cell of layer l at
            scale j is row l - j, whether it is strided or not.
        beta: logits of the edges into the cells at scale 1 and 2, (L-2, 2), (L-3, 2): row b of
            scale j belongs to the cell of layer b + j + 1; column 0 is the edge from the finer
            scale (down), column 1 the one from the same scale (keep). The cell of layer j has
            only the edge down, hence no row.
        ratio: width logits per scale, (L-1, W), (L-1, W), (L-2, W): row r of scale j is the
            tensor that enters the cell of layer r + max(j, 1). W = 1 stands for full width.

    Raises:
        ConfigError: the arrays are not floating point, their shapes do not belong together, or
            a value is NaN or plus infinity.
    """

    alpha: tuple[Logits, ...]
    beta: tuple[Logits, ...]
    ratio: tuple[Logits, ...]

    def __post_init__(self) -> None:
        for name, count in (("alpha", 3), ("beta", 2), ("ratio", 3)):
            arrays = getattr(self, name)
            if len(arrays) != count:
                raise ConfigError(f"{name} needs {count} arrays, not {len(arrays)}")
            object.__setattr__(self, name, tuple(_read_only(name, array) for array in arrays))
        layers, candidates = self.alpha[0].shape
        widths = self.ratio[0].shape[1]
        if layers < 3 or candidates == 0 or widths == 0:
            raise ConfigError(
                f"alpha {self.alpha[0].shape} and ratio {self.ratio[0].shape} need at least 3 "
                "layers, 1 operator and 1 width"
            )
        _check_shapes("alpha", self.alpha, (layers, layers - 1, layers - 2), candidates)
        _check_shapes("beta", self.beta, (layers - 2, layers - 3), 2)
        _check_shapes("ratio", self.ratio, (layers - 1, layers - 1, layers - 2), widths)

    @property
    def layers(self) -> int:
        """Number of layers, L."""
        return int(self.alpha[0].shape[0])

    @property
    def num_ops(self) -> int:
        """Number of candidate operators, K."""
        return int(self.alpha[0].shape[1])

    @property
    def num_widths(self) -> int:
        """Number of candidate widths, W."""
        return int(self.ratio[0].shape[1])


def _read_only(name: str, array: Logits) -> Logits:
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(f"{name} must hold floating point arrays, not {type(array).__name__}")
    if array.ndim != 2:
        raise ConfigError(f"{name} must hold arrays of rows and columns, not {array.shape}")
    if np.isnan(array).any() or np.isposinf(array).any():
        raise ConfigError(f"{name} holds NaN or infinity: the search has diverged")
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _check_shapes(name: str, arrays: Sequence[Logits], rows: tuple[int, ...], columns: int) -> None:
    found = [array.shape for array in arrays]
    expected = [(count, columns) for count in rows]
    if found != expected:
        raise ConfigError(f"{name} has shapes {found}, expected {expected}")
