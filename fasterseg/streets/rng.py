"""Random generators by address: the same seed and path give the same numbers, in any order."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def generator(seed: int, *path: int | str) -> np.random.Generator:
    """A fresh generator for one thing of one scene.

    Args:
        seed: the scene's seed, 0 or more.
        path: what the numbers are for, for example `"block", 12`; whole numbers may be negative.
    """
    words = [crc32(part.encode()) if isinstance(part, str) else part % 2**32 for part in path]
    return np.random.default_rng([seed, *words])


def pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """One key of `shares`, with a chance in proportion to its value."""
    mark = rng.random() * sum(shares.values())
    for name, share in shares.items():
        mark -= share
        if mark < 0:
            return name
    return next(reversed(shares))
