"""The one walk over a network: structure, sizes and counts."""

from __future__ import annotations

import json

import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.operators import macs
from fasterseg.arch.plan import Plan, plan
from fasterseg.errors import UsageError
from fasterseg.types import Size
from tests.shared import shared, zoo_genotype

FULL = Size(1024, 2048)

ROLES = {
    "arms32.0": "squeeze.0.16",
    "refines32.0": "fuse.0.16",
    "arms32.1": "squeeze.0.8",
    "refines32.1": "fuse.0.8",
    "arms16": "squeeze.1.8",
    "refines16": "fuse.1.8",
    "heads8": "head",
}
"""Name in the original -> role, for branches at 1/32 and 1/16."""


def role_of(name: str) -> str:
    if name.startswith("cells."):
        return name.replace("cells.", "cell.").replace("-", ".")
    return ROLES.get(name, name)


def released(name: str, size: Size = FULL, aux_heads: bool = False) -> Plan:
    return plan(zoo_genotype(f"fasterseg-{name}"), size, aux_heads)


def unused_attention(network: Plan) -> int:
    """Parameters of the original's FFM that no forward pass uses."""
    return 2 * int(network.by_role["ffm"].spec.out_channels ** 2)


@pytest.mark.parametrize(
    ("name", "used", "attention", "with_aux_heads", "multiply_adds"),
    [
        ("student", 3_421_875, 32_768, 4_385_689, 27_770_486_784),
        ("teacher", 22_115_203, 73_728, 23_524_137, 107_778_932_736),
    ],
)
def test_counts_are_those_of_the_released_networks(
    name: str, used: int, attention: int, with_aux_heads: int, multiply_adds: int
) -> None:
    network = released(name)
    assert network.parameters == used
    assert unused_attention(network) == attention
    assert network.macs == multiply_adds
    trained = released(name, aux_heads=True)
    assert trained.parameters + attention == with_aux_heads


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_every_layer_has_the_shapes_and_multiply_adds_of_the_original(name: str) -> None:
    path = shared(f"reference/fasterseg-{name}.json")
    layers = json.loads(path.read_text(encoding="utf-8"))["layers_1024x2048"]
    network = released(name)
    found = {
        node.role: [
            [1, node.spec.in_channels, *node.spec.size],
            [1, node.spec.out_channels, *node.spec.output_size],
            macs(node.spec),
        ]
        for node in network.nodes
        if node.role not in ("input", "output")
    }
    expected = {
        role_of(layer["name"]): [layer["in_shape"], layer["out_shape"], layer["macs"]]
        for layer in layers
    }
    assert found == expected


@pytest.mark.parametrize(("name", "cells"), [("student", 3), ("teacher", 4)])
def test_branches_share_their_common_start(name: str, cells: int) -> None:
    network = released(name)
    second = [len(network.genotype.branches[1].ops), *range(cells)]
    assert [f"cell.{cell}.1" in network.by_role for cell in range(second[0])] == [
        cell >= cells for cell in range(second[0])
    ]
    last_shared = network.by_role[f"cell.{cells - 1}.0"].id
    assert network.by_role[f"cell.{cells}.0"].inputs == (last_shared,)
    assert network.by_role[f"cell.{cells}.1"].inputs == (last_shared,)


def branch(*ops: str, strides: tuple[int, ...], widths: tuple[int, ...]) -> Branch:
    return Branch(ops, strides, widths)  # type: ignore[arg-type]


def network_of(*branches: Branch) -> Genotype:
    return Genotype("g", 19, 8, 8, branches)


def test_a_branchs_last_cell_is_never_shared() -> None:
    short = branch("conv", "conv", strides=(8, 8), widths=(4,))
    long = branch("conv", "conv", "conv", strides=(8, 8, 8), widths=(4, 8))
    roles = set(plan(network_of(short, long), FULL).by_role)
    assert "cell.0.1" not in roles
    assert {"cell.1.0", "cell.1.1", "cell.2.1"} <= roles
    # The second branch ends where the first goes on with the same channels.
    assert "cell.1.1" in plan(network_of(long, short), FULL).by_role
    twins = set(plan(network_of(short, short), FULL).by_role)
    assert {"cell.0.0", "cell.1.0", "cell.1.1"} <= twins
    assert "cell.0.1" not in twins


@pytest.mark.parametrize(
    "other",
    [
        branch("conv_2x", "conv", "conv", strides=(8, 8, 16), widths=(4, 4)),
        branch("conv", "conv", "conv", strides=(8, 8, 16), widths=(6, 4)),
        branch("conv", "conv", "conv", strides=(8, 16, 16), widths=(4, 4)),
    ],
    ids=["operator", "width", "next rate"],
)
def test_cells_that_differ_are_not_shared_nor_is_what_follows(other: Branch) -> None:
    first = branch("conv", "conv", "conv", strides=(8, 8, 16), widths=(4, 4))
    roles = plan(network_of(first, other), FULL).by_role
    assert {f"cell.{cell}.{index}" for cell in range(3) for index in range(2)} <= set(roles)


def test_three_branches_share_with_the_lowest_that_agrees() -> None:
    first = branch("conv", "conv", "conv", strides=(8, 8, 8), widths=(4, 4))
    second = branch("conv_2x", "conv", "conv", strides=(8, 8, 8), widths=(4, 4))
    third = branch("conv_2x", "conv", "conv", strides=(8, 8, 8), widths=(4, 8))
    roles = set(plan(network_of(first, second, third), FULL).by_role)
    assert "cell.0.2" not in roles
    assert {"cell.0.0", "cell.0.1", "cell.1.2"} <= roles


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_nodes_come_after_what_they_read_and_roles_are_unique(name: str) -> None:
    network = released(name, aux_heads=True)
    assert [node.id for node in network.nodes] == list(range(len(network.nodes)))
    assert all(source < node.id for node in network.nodes for source in node.inputs)
    assert len(network.by_role) == len(network.nodes)
    assert network.nodes[0].role == "input"
    assert network.nodes[-1].role == "output"
    used = {source for node in network.nodes for source in node.inputs}
    ends = [node.role for node in network.nodes if node.id not in used]
    assert ends == ["aux.32", "aux.16", "output"]


def test_channels_of_a_node_are_those_of_its_inputs_together() -> None:
    network = released("student", aux_heads=True)
    for node in network.nodes[1:]:
        specs = [network.nodes[source].spec for source in node.inputs]
        assert node.spec.in_channels == sum(spec.out_channels for spec in specs)
        assert node.spec.size == specs[-1].output_size


def test_a_merge_reads_the_coarse_map_first_and_then_the_finer_one() -> None:
    network = released("student")
    squeeze, tap = network.by_role["fuse.0.16"].inputs
    assert network.nodes[squeeze].role == "squeeze.0.16"
    assert network.nodes[tap].role == "cell.6.0"
    assert [network.nodes[i].role for i in network.by_role["ffm"].inputs] == [
        "fuse.0.8",
        "fuse.1.8",
    ]


def test_a_path_that_leaves_1_8_at_once_merges_the_stems_map() -> None:
    at_once = branch("conv", "conv", strides=(8, 16), widths=(4,))
    network = plan(network_of(at_once), FULL)
    assert network.nodes[network.by_role["fuse.0.8"].inputs[1]].role == "stem.2"


def test_a_branch_at_1_8_enters_the_ffm_as_it_is() -> None:
    flat = branch("conv", "conv", strides=(8, 8), widths=(4,))
    network = plan(network_of(flat), FULL)
    assert [network.nodes[i].role for i in network.by_role["ffm"].inputs] == ["cell.1.0"]
    assert not [role for role in network.by_role if role.startswith(("squeeze", "fuse"))]


def test_training_heads_exist_where_their_branches_do() -> None:
    flat = branch("conv", strides=(8,), widths=())
    sixteenth = branch("conv", "conv", strides=(8, 16), widths=(4,))
    deep = branch("conv", "conv", "conv", strides=(8, 16, 32), widths=(4, 6))

    def heads(*branches: Branch) -> dict[str, int]:
        network = plan(network_of(*branches), FULL, aux_heads=True)
        return {
            node.role: node.spec.in_channels
            for node in network.nodes
            if node.role.startswith("aux")
        }

    assert heads(deep, sixteenth) == {"aux.32": 256, "aux.16": 64 + 128}
    assert heads(deep, flat) == {"aux.32": 256, "aux.16": 64}
    assert heads(flat) == {}


def test_odd_maps_differ_between_branches_and_the_merge_follows_the_finer_one() -> None:
    network = released("student", Size(160, 216))  # 20x27 at 1/8
    assert network.by_role["cell.3.0"].spec.output_size == (10, 13)
    assert network.by_role["cell.5.1"].spec.output_size == (10, 14)
    assert network.by_role["fuse.0.8"].spec.output_size == (20, 27)
    assert network.by_role["fuse.1.8"].spec.output_size == (20, 27)
    assert network.logits_size == (20, 27)


def test_logits_are_ceiling_eighths_and_the_output_eight_times_that() -> None:
    network = released("student", Size(100, 77))
    assert network.logits_size == (13, 10)
    assert network.by_role["output"].spec.output_size == (104, 80)
    assert network.by_role["head"].spec.out_channels == 19


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_the_least_size_can_be_planned_and_less_is_refused(name: str) -> None:
    assert released(name, Size(64, 64)).logits_size == (8, 8)
    for size in (Size(63, 64), Size(64, 63)):
        with pytest.raises(UsageError, match="at least 64x64"):
            released(name, size)


def test_a_strided_skip_on_an_odd_map_is_refused() -> None:
    skipping = branch("conv", "skip", "conv", strides=(8, 8, 16), widths=(4, 4))
    assert plan(network_of(skipping), Size(352, 480)).logits_size == (44, 60)
    with pytest.raises(UsageError, match="even"):
        plan(network_of(skipping), Size(360, 480))


def test_planning_twice_gives_the_same() -> None:
    assert released("teacher") == released("teacher")
