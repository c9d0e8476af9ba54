"""`python -m tests.unit.cpp.sanitized LIBRARY [overrun]`: kernels under AddressSanitizer.

Arrays are allocated to the byte, so a read beyond one is caught even where its value is thrown
away. With `overrun` the weights are one value short: that run must be stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasterseg.runtime.kernels import KernelLibrary, Layout, Type
from tests.unit.cpp.calls import (
    DENSE,
    Around,
    Held,
    convolutions,
    normalize_bgr,
    resize,
    upsample_argmax,
    zoomed_conv,
)


class BareHeld:
    """An array in an allocation of exactly its size."""

    def __init__(self, array: NDArray[Any], short: int) -> None:
        self._flat = array.reshape(-1)[: array.size - short].copy()
        self.pointer = int(self._flat.ctypes.data)
        self._shape = array.shape

    def get(self) -> NDArray[Any]:
        return self._flat


class BareMemory:
    """Memory without guards; every array of four axes lacks `short` values."""

    def __init__(self, short: int = 0) -> None:
        self._short = short

    def put(self, array: NDArray[Any]) -> Held:
        return BareHeld(array, self._short if array.ndim == 4 else 0)


def main(library: str, overrun: bool) -> None:
    kernels, memory = KernelLibrary(Path(library)), BareMemory(1 if overrun else 0)
    random = np.random.default_rng(0)
    for height, width in ((2, 3), (9, 17), (18, 35)):
        for count in (1, 2):
            for stride in (1, 2):
                maps = random.standard_normal((2, height, width, 40)).astype(np.float16)
                convs = convolutions(random, 40, 24, count)
                zoomed_conv(kernels, memory, maps, convs, stride)
        halves = random.standard_normal((2, height, width, 40)).astype(np.float16)
        bias = random.standard_normal(40).astype(np.float32)
        for size in ((height, width), (2 * height, 2 * width), (height // 2, width // 2)):
            for around in (DENSE, Around((8, 0), (16, 8))):
                resize(kernels, memory, halves, size, bias, relu=True, around=around)
        logits = random.standard_normal((2, 35, height, width)).astype(np.float32)
        frames = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        for layout in Layout:
            upsample_argmax(kernels, memory, logits, (8 * height - 3, 8 * width - 5), layout, 0)
            for kind in Type:
                normalize_bgr(kernels, memory, frames, kind, layout)


if __name__ == "__main__":
    main(sys.argv[1], overrun=sys.argv[2:] == ["overrun"])
