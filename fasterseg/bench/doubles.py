"""Cells of two convolutions priced as two single ones: what a table of convolutions would say.

Engines fuse what stands together, so the parts of a cell need not add up to the cell. The rows of
a table are whole cells; here they are put together from rows of single convolutions, to show by
how much that predicts worse or better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fasterseg.arch.operators import OpSpec, parse_key

_FIRST: Final = {"conv_2x": "conv", "conv_2x_downup": "conv_downup"}
"""Cell of two convolutions -> cell of one, which is its first half."""


def as_singles(rows: Mapping[str, float]) -> dict[str, float]:
    """Rows with every cell of two convolutions priced as two cells of one.

    A zoomed cell of stride 1 becomes two zoomed ones, whose resizes in the middle the cell does
    without; no row is of a convolution at half the size alone. Where a part has no row (the
    stem), the cell keeps its own.

    Args:
        rows: operator key -> milliseconds.
    """
    priced = dict(rows)
    for key in rows:
        parts = [part.key() for part in singles(parse_key(key))]
        if parts and all(part in rows for part in parts):
            priced[key] = sum(rows[part] for part in parts)
    return priced


def singles(spec: OpSpec) -> tuple[OpSpec, ...]:
    """The two cells of one convolution that a cell of two is made of; none for other operators."""
    if spec.op not in _FIRST:
        return ()
    first = replace(spec, op=_FIRST[spec.op])
    size = first.output_size
    # Behind a strided zoomed cell nothing is scaled back, so its second half is a plain one.
    second = "conv" if spec.stride == 2 else first.op
    return first, OpSpec(second, spec.out_channels, spec.out_channels, 1, size.height, size.width)
