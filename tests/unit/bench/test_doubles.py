"""Cells of two convolutions put together from rows of one."""

from __future__ import annotations

import pytest

from fasterseg.arch.operators import OpSpec, macs
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.doubles import as_singles, singles
from fasterseg.types import Size

SPACE = SearchSpace(layers=4, widths=(4, 8))
SIZE = Size(128, 256)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", ["conv_2x", "conv_2x_downup"])
def test_parts_do_the_same_multiply_adds(op: str, stride: int) -> None:
    spec = OpSpec(op, 32, 64, 2 if stride == 2 else 1, 16, 32)
    first, second = singles(spec)
    assert macs(first) + macs(second) == macs(spec)
    assert second.in_channels == second.out_channels == 64
    assert (second.height, second.width) == spec.output_size


def test_only_cells_of_two_convolutions_have_parts() -> None:
    for op in ("skip", "conv", "conv_downup", "squeeze", "fuse", "ffm", "head"):
        assert singles(OpSpec(op, 32, 64, 1, 16, 32)) == ()


def test_every_cell_of_a_space_but_the_stem_is_put_together() -> None:
    rows = {spec.key(): 1.0 for spec in SPACE.specs(SIZE)}
    priced = as_singles(rows)
    doubles = [spec for spec in SPACE.specs(SIZE) if spec.op in ("conv_2x", "conv_2x_downup")]
    stem = {spec.key() for spec in doubles if spec.height > SIZE.height // 8}
    assert len(stem) == 2
    for spec in doubles:
        assert priced[spec.key()] == (1.0 if spec.key() in stem else 2.0)
    assert {key for key in rows if priced[key] != 1.0} == {s.key() for s in doubles} - stem


def test_a_cell_keeps_its_row_where_a_part_has_none() -> None:
    spec = OpSpec("conv_2x", 32, 64, 1, 16, 32)
    first, _ = singles(spec)
    rows = {spec.key(): 3.0, first.key(): 1.0}
    assert as_singles(rows) == rows
