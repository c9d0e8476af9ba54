"""The space lists every operator that any of its networks can hold."""

from __future__ import annotations

import random
from typing import cast

import pytest

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.operators import CANDIDATES, OpSpec, parse_key
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError, UsageError
from fasterseg.types import Size
from tests.shared import ROOT

SIZES = ["1024x2048", "352x480", "360x480", "720x1280", "100x100", "64x64"]
TEACHER = SearchSpace(widths=(12,), stem_widths=(12,), head_widths=(12,))


def has_odd_maps(size: Size) -> bool:
    """Whether a map that can be strided (1/8 or 1/16) has an odd height or width."""
    return any(-(-length // 8) % 4 for length in size)


def random_branch(choose: random.Random, space: SearchSpace, rate: Rate, odd: bool) -> Branch:
    descents = {8: 0, 16: 1, 32: 2}[rate]
    cells = choose.randint(descents + 1, space.layers)
    strided = sorted(choose.sample(range(cells - 1), descents))
    scales = [sum(cell > descent for descent in strided) for cell in range(cells)]
    ops = [
        choose.choice([op for op in space.ops if not (odd and op == "skip" and cell in strided)])
        for cell in range(cells)
    ]
    return Branch(
        tuple(ops),
        tuple(cast("Rate", 8 * 2**scale) for scale in scales),
        tuple(choose.choice(space.widths) for _ in range(cells - 1)),
    )


def random_genotype(seed: int, space: SearchSpace, odd: bool) -> Genotype:
    choose = random.Random(seed)
    rates = choose.choice(space.final_rates)
    branches = tuple(random_branch(choose, space, rate, odd) for rate in rates)
    stem, head = choose.choice(space.stem_widths), choose.choice(space.head_widths)
    return space.genotype(branches, stem_width=stem, head_width=head)


@pytest.mark.parametrize("text", SIZES)
@pytest.mark.parametrize(
    "space",
    [
        SearchSpace(),
        TEACHER,
        SearchSpace(stem_widths=(5,), head_widths=(7,), widths=(4, 9), final_rates=((32,),)),
        SearchSpace(stem_widths=(4, 6), head_widths=(4, 8), widths=(4, 9)),
        SearchSpace(ops=("conv", "conv_2x_downup"), final_rates=((16,), (8, 16, 32))),
    ],
    ids=["paper", "teacher", "other widths", "stems and heads", "few choices"],
)
def test_every_operator_of_every_network_of_the_space_is_listed(
    space: SearchSpace, text: str
) -> None:
    size = Size.parse(text)
    specs = set(space.specs(size))
    seen: set[OpSpec] = set()
    for seed in range(60):
        genotype = random_genotype(seed, space, has_odd_maps(size))
        seen |= {node.spec for node in plan(genotype, size).nodes}
    assert seen <= specs
    assert len(seen) > len(specs) / 10


def test_listed_operators_are_distinct_ordered_and_read_back_from_their_keys() -> None:
    for text in SIZES:
        specs = SearchSpace().specs(Size.parse(text))
        keys = [spec.key() for spec in specs]
        assert keys == sorted(set(keys))
        assert [parse_key(key) for key in keys] == specs
        assert [parse_key(key).key() for key in keys] == keys
        assert specs == SearchSpace().specs(Size.parse(text))


def test_the_space_of_the_paper_asks_for_125_rows_per_candidate() -> None:
    specs = SearchSpace().specs(Size(1024, 2048))
    count = {op: sum(spec.op == op for spec in specs) for op in {spec.op for spec in specs}}
    fixed = {"input": 1, "squeeze": 2, "fuse": 10, "ffm": 1, "head": 1, "output": 1}
    # The stem adds one conv and two conv_2x at sizes of their own.
    candidates = {op: 125 for op in CANDIDATES} | {"conv": 126, "conv_2x": 127}
    assert count == fixed | candidates


@pytest.mark.parametrize("space", [SearchSpace(), TEACHER], ids=["student", "teacher"])
def test_the_original_table_has_every_row_the_space_can_ask_for(space: SearchSpace) -> None:
    folder = ROOT / "benchmarks" / "tables" / "gtx1080ti-original"
    table = LatencyTable.load(folder / "tensorrt5.1-fp32-1024x2048.json")
    assert table.missing(space.specs(Size(1024, 2048))) == []


def test_odd_maps_bring_both_roundings_and_no_strided_skip() -> None:
    specs = SearchSpace().specs(Size(360, 480))  # 45x60 at 1/8
    sixteenth = {(s.height, s.width) for s in specs if s.op == "conv" and s.in_channels == 160}
    assert sixteenth == {(23, 30), (22, 30)}
    strided_skips = {spec.size for spec in specs if spec.op == "skip" and spec.stride == 2}
    assert strided_skips == {Size(22, 30)}


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(UsageError, match="64x64"):
        SearchSpace().specs(Size(32, 64))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 2}, "layers 2"),
        ({"ops": ("conv", "conv")}, "distinct"),
        ({"ops": ("dilated",)}, "distinct ones of skip, conv"),
        ({"ops": ("skip",)}, "other than skip"),
        ({"ops": ()}, "other than skip"),
        ({"widths": ()}, "ascending"),
        ({"widths": (8, 4)}, "ascending"),
        ({"widths": (4, 13)}, "width 13"),
        ({"stem_widths": (3,)}, "stem_width 3"),
        ({"head_widths": (20,)}, "head_width 20"),
        ({"head_widths": ()}, "head_widths .* ascending"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"final_rates": ()}, "final_rates"),
        ({"final_rates": ((32,), ())}, "final_rates"),
        ({"final_rates": ((64,),)}, "final_rates"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSpace(**wrong)  # type: ignore[arg-type]
