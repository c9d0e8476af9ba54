"""Derivation against what the original code derives, and what the supernet means."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.plan import Plan, plan
from fasterseg.arch.space import WIDTHS, SearchSpace
from fasterseg.errors import ConfigError, UsageError
from fasterseg.search.derive import derive, derive_genotype, softmax
from fasterseg.search.parameters import ArchParameters, Logits
from fasterseg.types import Size
from tests.shared import golden, shared

Case = dict[str, Any]
RATES: dict[str, Rate] = {"0": 8, "1": 16, "2": 32}


@pytest.fixture(params=["golden", "shared"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    if request.param == "golden":
        found: list[Case] = golden("derivation.json")["cases"]
        return found
    text = shared("reference/parity/derivation.json").read_text(encoding="utf-8")
    found = json.loads(text)["cases"]
    assert len(found) == 35
    return found


def logits_of(case: Case) -> ArchParameters:
    values = {name: np.array(rows, np.float32) for name, rows in case["values"].items()}
    return ArchParameters(
        alpha=tuple(values[f"alpha_{scale}"] for scale in range(3)),
        beta=tuple(values[f"beta_{scale}"] for scale in (1, 2)),
        ratio=tuple(values[f"ratio_{scale}"] for scale in range(3)),
    )


def random_logits(
    seed: int, layers: int = 16, widths: int = 5, skip_bias: float = 0.0
) -> ArchParameters:
    generator = np.random.default_rng(seed)

    def draw(rows: int, columns: int) -> Logits:
        return generator.standard_normal((rows, columns)).astype(np.float32)

    alpha = tuple(draw(layers - scale, len(CANDIDATES)) for scale in range(3))
    for array in alpha:
        array[:, 0] += skip_bias
    beta = tuple(draw(layers - scale, 2) for scale in (2, 3))
    ratio = tuple(draw(layers - max(scale, 1), widths) for scale in range(3))
    return ArchParameters(alpha, beta, ratio)


def equal_logits(widths: int = 5) -> ArchParameters:
    """The state before any search: no choice is better than another."""
    return ArchParameters(
        alpha=tuple(np.full((16 - scale, 5), 1e-3) for scale in range(3)),
        beta=tuple(np.full((14 - scale, 2), 1e-3) for scale in range(2)),
        ratio=tuple(np.full((16 - max(scale, 1), widths), 1e-3) for scale in range(3)),
    )


def described(branch: Branch) -> Case:
    """A branch in the words of the fixtures."""
    after = (*branch.strides[1:], branch.strides[-1])
    return {
        "ops": [CANDIDATES.index(op) for op in branch.ops],
        "path": [{8: 0, 16: 1, 32: 2}[rate] for rate in branch.strides],
        "downs": [int(a != b) for a, b in zip(branch.strides, after, strict=True)],
        "widths_twelfths": list(branch.widths),
    }


def original(case: Case, last: str) -> Branch:
    return derive(
        logits_of(case),
        RATES[last],
        widths=WIDTHS,
        ignore_skip=case["ignore_skip"],
        original=True,
    )


def whole_path(case: Case, last: str, original: bool) -> list[int]:
    """The path before pruning: with skip ignored nothing is pruned."""
    branch = derive(
        logits_of(case), RATES[last], widths=WIDTHS, ignore_skip=True, original=original
    )
    path: list[int] = described(branch)["path"]
    return path


@pytest.mark.parametrize("last", ["0", "1", "2"])
def test_original_derivation_is_that_of_the_original_code(cases: list[Case], last: str) -> None:
    derived = {case["name"]: described(original(case, last)) for case in cases}
    assert derived == {case["name"]: case["derived"][last] for case in cases}


@pytest.mark.parametrize("last", ["0", "1", "2"])
def test_original_paths_before_pruning_are_those_of_the_original_code(
    cases: list[Case], last: str
) -> None:
    paths = {case["name"]: whole_path(case, last, original=True) for case in cases}
    assert paths == {case["name"]: case["raw_path"][last] for case in cases}


def test_default_paths_are_those_the_supernet_means(cases: list[Case]) -> None:
    paths = {
        case["name"]: [whole_path(case, last, original=False) for last in ("1", "2")]
        for case in cases
    }
    assert paths == {
        case["name"]: [
            case["alternatives"]["supernet_consistent_path_last1"],
            case["alternatives"]["full_range_path_last2"],
        ]
        for case in cases
    }


def test_default_is_the_original_on_untouched_logits_where_the_paths_agree(
    cases: list[Case],
) -> None:
    compared = 0
    for case in cases:
        paths = case["alternatives"]
        if case["n_widths"] == 1:
            continue
        expected = {"0": case["derived"]["0"]}
        if paths["full_range_path_last2"] == paths["single_softmax_path_last2"]:
            expected["2"] = {"2": case["derived"]["2"], **case.get("fresh_alphas_result", {})}["2"]
        for last, branch in expected.items():
            derived = derive(
                logits_of(case), RATES[last], widths=WIDTHS, ignore_skip=case["ignore_skip"]
            )
            assert described(derived) == branch, (case["name"], last)
            compared += last == "2"
    assert compared >= 2


def cells_of(plan_: Plan) -> list[list[Any]]:
    """Cells as the fixtures list them: layer, branches, op, scale, in, out, down."""
    lengths = [len(branch.ops) for branch in plan_.genotype.branches]
    found = []
    for node in plan_.nodes:
        kind, *place = node.role.split(".")
        if kind != "cell":
            continue
        layer, index = (int(number) for number in place)
        joined = index == 0 and layer < lengths[1] and f"cell.{layer}.1" not in plan_.by_role
        rate = plan_.genotype.branches[index].strides[layer]
        spec = node.spec
        channels = (spec.in_channels, spec.out_channels)
        branches = [0, 1] if joined else [index]
        op = CANDIDATES.index(spec.op)
        found.append([layer, branches, op, rate, *channels, spec.stride - 1])
    return sorted(found, key=lambda cell: (cell[0], cell[1]))


def tap_channels(plan_: Plan, branch: int, rate: int) -> int:
    """Channels of a branch's map at a rate as they enter its merge; 0 without such a merge."""
    node = plan_.by_role.get(f"fuse.{branch}.{rate}")
    return node.spec.in_channels - node.spec.out_channels if node else 0


@pytest.mark.parametrize("lasts", ["21", "20"])
def test_planned_network_has_the_structure_the_original_builds(
    cases: list[Case], lasts: str
) -> None:
    for case in cases:
        stem, head = case["stem_head_width_twelfths"]
        branches = tuple(original(case, last) for last in lasts)
        network = plan(Genotype(case["name"], 19, stem, head, branches), Size(128, 256))
        expected = case[f"build_{lasts}"]
        assert cells_of(network) == expected["cells_[layer,branches,op,scale,in,out,down]"]
        assert tap_channels(network, 0, 16) == expected["ch_16"]
        assert tap_channels(network, 0, 8) == expected["ch_8_2"]
        assert tap_channels(network, 1, 8) == expected["ch_8_1"]
        unused_attention = 2 * network.by_role["ffm"].spec.out_channels ** 2
        assert network.parameters + unused_attention == expected["params_eval_build"]
        assert expected["forward_128x256"] == [1, 19, 128, 256]
        assert network.by_role["output"].spec.output_size == (128, 256)


@pytest.mark.parametrize("original", [False, True])
def test_deriving_twice_gives_the_same_and_changes_no_input(original: bool) -> None:
    # The case in which every oddity of the original shows.
    case = {case["name"]: case for case in golden("derivation.json")["cases"]}["tripleSoftmax_00"]
    parameters, untouched = logits_of(case), logits_of(case)
    first = [derive(parameters, rate, widths=WIDTHS, original=original) for rate in (32, 16, 8)]
    second = [derive(parameters, rate, widths=WIDTHS, original=original) for rate in (8, 16, 32)]
    assert first == second[::-1]
    for name in ("alpha", "beta", "ratio"):
        pairs = zip(getattr(parameters, name), getattr(untouched, name), strict=True)
        assert all(np.array_equal(after, before) for after, before in pairs)


@pytest.mark.parametrize("rate", [8, 16, 32])
@pytest.mark.parametrize("skip_bias", [0.0, 2.0, 9.0])
def test_derived_branches_hold_no_skip_and_keep_their_least_depth(
    rate: Rate, skip_bias: float
) -> None:
    least = {8: 5, 16: 7, 32: 9}[rate]
    for seed in range(20):
        branch = derive(random_logits(seed, skip_bias=skip_bias), rate, widths=WIDTHS)
        assert "skip" not in branch.ops
        assert least <= len(branch.ops) <= 16
        assert branch.final_rate == rate


def test_without_skip_among_the_candidates_nothing_is_pruned() -> None:
    parameters = random_logits(0)
    four = ArchParameters(
        tuple(array[:, 1:] for array in parameters.alpha), parameters.beta, parameters.ratio
    )
    branch = derive(four, 32, widths=WIDTHS, ops=CANDIDATES[1:])
    assert branch == derive(parameters, 32, widths=WIDTHS, ignore_skip=True)
    assert len(branch.ops) == 16


def test_among_equally_certain_skips_the_earlier_layers_are_pruned() -> None:
    parameters = equal_logits()
    ratio = [array.copy() for array in parameters.ratio]
    for row in range(15):
        ratio[0][row, row % 5] = 1.0
    parameters = ArchParameters(parameters.alpha, parameters.beta, tuple(ratio))
    branch = derive(parameters, 8, widths=WIDTHS)
    assert branch.ops == ("conv",) * 5
    # Layers 11 to 15 are left: the tensors that enter 12 to 15 are rows 11 to 14.
    assert branch.widths == tuple(WIDTHS[row % 5] for row in (11, 12, 13, 14))


def test_a_scale_whose_cells_are_all_skips_keeps_its_least_certain_one() -> None:
    parameters = random_logits(3)
    alpha = [array.copy() for array in parameters.alpha]
    beta = [np.zeros((14, 2)), np.zeros((13, 2))]
    beta[0][11, 0] = 9.0  # scale 1 starts in layer 13
    alpha[1][:, 0] = 9.0
    alpha[1][14 - 1] = [9.0, 0.0, 0.0, 8.9, 0.0]  # layer 14, the least certain
    branch = derive(ArchParameters(tuple(alpha), tuple(beta), parameters.ratio), 16, widths=WIDTHS)
    assert branch.strides.count(16) == 1
    assert branch.ops[-1] == "conv_2x"


def test_one_column_of_widths_means_the_widest_and_in_the_original_4_or_12() -> None:
    parameters = random_logits(1, widths=1)
    assert set(derive(parameters, 32, widths=WIDTHS).widths) == {12}
    assert set(derive(parameters, 32, widths=(6,)).widths) == {6}
    assert set(derive(parameters, 32, widths=WIDTHS, original=True).widths) == {4}
    teacher = derive(parameters, 32, widths=WIDTHS, original=True, ignore_skip=True)
    assert set(teacher.widths) == {12}


def test_derived_genotype_has_the_branches_in_order_and_the_values_of_the_space() -> None:
    parameters = random_logits(5)
    space = SearchSpace(stem_widths=(6,), head_widths=(10,), num_classes=11)
    genotype = derive_genotype(parameters, (32, 8), space, name="found")
    assert (genotype.name, genotype.num_classes) == ("found", 11)
    assert (genotype.stem_width, genotype.head_width) == (6, 10)
    assert genotype.branches == (
        derive(parameters, 32, widths=WIDTHS),
        derive(parameters, 8, widths=WIDTHS),
    )
    in_sequence = derive_genotype(parameters, (32, 16), space, original=True)
    assert in_sequence.branches[1] == derive(parameters, 16, widths=WIDTHS, original=True)


def test_derived_networks_are_in_their_space() -> None:
    size = Size(352, 480)
    space = SearchSpace()
    known = set(space.specs(size))
    for seed in range(5):
        genotype = derive_genotype(random_logits(seed, skip_bias=1.0), (32, 16), space)
        assert {node.spec for node in plan(genotype, size).nodes} <= known


def test_short_supernets_derive_too() -> None:
    parameters = random_logits(0, layers=6)
    for rate in (8, 16, 32):
        assert derive(parameters, rate, widths=WIDTHS).final_rate == rate
    # The least depth, 5, is more than there is: nothing may be pruned.
    shortest = derive(random_logits(0, layers=4, skip_bias=9.0), 32, widths=WIDTHS)
    assert len(shortest.ops) == 4


@pytest.mark.parametrize("original", [False, True])
def test_of_equally_probable_ways_down_to_1_32_the_earliest_is_taken(original: bool) -> None:
    equal = equal_logits()
    beta = [np.zeros((14, 2)), np.zeros((13, 2))]
    beta[0][[2, 5], 0] = 1.0
    beta[1][[8, 9], 0] = 1.0
    parameters = ArchParameters(equal.alpha, tuple(beta), equal.ratio)
    strides = derive(parameters, 32, widths=WIDTHS, ignore_skip=True, original=original).strides
    assert (strides.index(16), strides.index(32)) == (4, 11)  # rows 2 and 8


@pytest.mark.parametrize(("layers", "rate"), [(4, 16), (3, 32)])
def test_too_few_layers_for_a_rate_are_refused(layers: int, rate: Rate) -> None:
    with pytest.raises(UsageError, match="too few layers"):
        derive(random_logits(0, layers=layers), rate, widths=WIDTHS)


def test_candidates_that_do_not_fit_the_logits_are_refused() -> None:
    parameters = random_logits(0)
    with pytest.raises(UsageError, match="2 widths"):
        derive(parameters, 8, widths=(4, 8))
    with pytest.raises(UsageError, match="4 ops"):
        derive(parameters, 8, widths=WIDTHS, ops=CANDIDATES[1:])
    with pytest.raises(UsageError, match="64 is not one of"):
        derive(parameters, 64, widths=WIDTHS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not among"):
        derive_genotype(parameters, (16, 8), SearchSpace())
    with pytest.raises(UsageError, match="16 layers"):
        derive_genotype(parameters, (32, 16), SearchSpace(layers=12))


def test_parameters_are_read_only_copies() -> None:
    source = np.zeros((16, 5))
    equal = equal_logits()
    parameters = ArchParameters((source, *equal.alpha[1:]), equal.beta, equal.ratio)
    source[:] = 1.0
    assert parameters.alpha[0].sum() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        parameters.alpha[0][0, 0] = 1.0
    assert (parameters.layers, parameters.num_ops, parameters.num_widths) == (16, 5, 5)


def test_parameters_of_wrong_shapes_are_refused() -> None:
    good = equal_logits()
    with pytest.raises(ConfigError, match="alpha needs 3 arrays"):
        ArchParameters(good.alpha[:2], good.beta, good.ratio)
    with pytest.raises(ConfigError, match=r"beta has shapes .*expected \[\(14, 2\), \(13, 2\)\]"):
        ArchParameters(good.alpha, good.beta[::-1], good.ratio)
    with pytest.raises(ConfigError, match="ratio has shapes"):
        ArchParameters(good.alpha, good.beta, (*good.ratio[:2], np.zeros((14, 1))))
    with pytest.raises(ConfigError, match="at least 3 layers"):
        ArchParameters((np.zeros((2, 5)), *good.alpha[1:]), good.beta, good.ratio)
    with pytest.raises(ConfigError, match="rows and columns"):
        ArchParameters((np.zeros(5), *good.alpha[1:]), good.beta, good.ratio)


def test_parameters_that_are_no_finite_numbers_are_refused() -> None:
    good = equal_logits()
    for value in (np.nan, np.inf):
        diverged = np.full((16, 5), value)
        with pytest.raises(ConfigError, match="diverged"):
            ArchParameters((diverged, *good.alpha[1:]), good.beta, good.ratio)
    whole = np.zeros((16, 5), np.int64)
    with pytest.raises(ConfigError, match="floating point"):
        ArchParameters((whole, *good.alpha[1:]), good.beta, good.ratio)  # type: ignore[arg-type]


def test_softmax_rows_sum_to_one_even_for_great_logits() -> None:
    result = softmax(np.array([[1000.0, 0.0], [0.0, -np.inf]], np.float32))
    assert result.dtype == np.float32
    assert result.tolist() == [[1.0, 0.0], [1.0, 0.0]]
