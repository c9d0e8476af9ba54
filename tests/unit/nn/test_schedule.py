"""A plan as launches: nothing is lost, nothing is read too early, lanes meet where they must."""

from __future__ import annotations

from collections import Counter

import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.operators import Conv, Project, Skip, expand
from fasterseg.arch.plan import Plan, plan
from fasterseg.nn.schedule import Launch, Schedule, held_channels, schedule
from fasterseg.types import Size
from tests.parity import random_genotype
from tests.shared import zoo_genotype

SIZE = Size(64, 128)

FORMS = [(zoomed, lanes) for zoomed in (False, True) for lanes in (1, 2, 3)]


def plans() -> list[Plan]:
    zoo = [zoo_genotype(f"fasterseg-{name}") for name in ("student", "teacher", "camvid")]
    return [plan(genotype, SIZE) for genotype in (*zoo, *(random_genotype(n) for n in range(12)))]


def skips() -> Plan:
    """Three skips: one that changes nothing, one to other channels, one with stride 2."""
    ops, strides = ("skip", "skip", "skip", "conv"), (8, 8, 8, 16)
    branch = Branch(ops, strides, (8, 6, 6))  # type: ignore[arg-type]
    return plan(Genotype("skips", 19, 8, 8, (branch,)), SIZE)


def by_name(order: Schedule) -> dict[str, Launch]:
    found = {launch.name: launch for launch in order.launches}
    assert len(found) == len(order.launches)
    return found


def convolutions(of: Plan) -> Counter[str]:
    """Names of all folded convolutions of a plan."""
    found: Counter[str] = Counter()
    for node in of.nodes:
        for layer in expand(node.spec):
            match layer.step:
                case Conv() | Project():
                    found[f"{node.role}.{layer.name}"] += 1
                case Skip() if not layer.is_identity:
                    found.update(f"{node.role}.conv{n + 1}" for n in range(layer.stride))
                case _:
                    pass
    return found


@pytest.mark.parametrize(("zoomed", "lanes"), FORMS)
def test_every_weight_and_bias_is_used_once_and_every_multiplication_counted(
    zoomed: bool, lanes: int
) -> None:
    for of in plans():
        order = schedule(of, zoomed=zoomed, lanes=lanes)
        wanted = convolutions(of)
        assert Counter(name for one in order.launches for name in one.weights) == wanted
        assert Counter(name for one in order.launches for name in one.biases) == wanted
        assert sum(one.macs for one in order.launches) == of.macs


@pytest.mark.parametrize(("zoomed", "lanes"), FORMS)
def test_values_are_made_before_they_are_read_and_fit(zoomed: bool, lanes: int) -> None:
    for of in plans():
        order = schedule(of, zoomed=zoomed, lanes=lanes)
        assert [one.id for one in order.launches] == list(range(len(order.launches)))
        assert order.launches[0].kind == "normalize"
        assert order.launches[-1].kind == "tail"
        assert {one.kind for one in order.launches[1:-1]}.isdisjoint({"normalize", "tail"})
        for one in order.launches[1:]:
            sources = [order.launches[source] for source in one.inputs]
            assert all(source.id < one.id for source in sources)
            assert sum(source.out_channels for source in sources) == one.in_channels
            if one.kind != "join":
                assert [source.out_size for source in sources] == [one.in_size]
        # The output needs all of them.
        assert all(last > value for value, last in enumerate(order.last_use[:-1]))


def test_a_resize_adds_what_the_convolution_before_it_left_out() -> None:
    names = by_name(schedule(plan(zoo_genotype("fasterseg-student"), SIZE)))
    bare, restore = names["cell.2.0.conv2"], names["cell.2.0.restore"]
    assert (bare.has_bias, bare.relu) == (False, False)
    assert (restore.biases, restore.relu) == (("cell.2.0.conv2",), True)
    half = names["cell.2.0.half"]
    assert (half.has_bias, half.relu, half.out_size) == (False, False, Size(4, 8))
    first = names["cell.2.0.conv1"]
    assert (first.has_bias, first.relu) == (True, True)


def test_only_the_logits_have_no_relu_behind_their_convolution() -> None:
    for of in plans():
        for one in schedule(of).launches:
            if one.weights and one.has_bias:
                assert one.relu is (one.kind != "project")


def test_a_zoomed_cell_is_one_launch_if_asked_for() -> None:
    of = plan(zoo_genotype("fasterseg-student"), SIZE)
    names = by_name(schedule(of, zoomed=True))
    whole = names["cell.3.0.zoomed"]
    assert (whole.weights, whole.stride) == (("cell.3.0.conv1",), 2)
    assert (whole.in_size, whole.out_size) == (Size(8, 16), Size(4, 8))
    assert names["cell.2.0.zoomed"].weights == ("cell.2.0.conv1", "cell.2.0.conv2")
    assert not [name for name in names if name.endswith((".half", ".restore"))]
    assert names["cell.0.0.conv1"].kind == "conv"


def test_skips_are_nothing_or_one_convolution() -> None:
    names = by_name(schedule(skips()))
    assert not [name for name in names if name.startswith("cell.0.")]
    other = names["cell.1.0.skip"]
    assert (other.kernel, other.stride, other.weights) == (1, 1, ("cell.1.0.conv1",))
    strided = names["cell.2.0.skip"]
    assert (strided.kernel, strided.stride, strided.relu) == (2, 2, True)
    assert strided.weights == strided.biases == ("cell.2.0.conv1", "cell.2.0.conv2")
    assert other.inputs == (names["stem.2.conv2"].id,)


def test_training_heads_are_left_out() -> None:
    genotype = zoo_genotype("fasterseg-student")
    assert schedule(plan(genotype, SIZE, aux_heads=True)).launches == (
        schedule(plan(genotype, SIZE)).launches
    )


def test_what_branches_share_is_on_the_first_lane() -> None:
    of = plan(zoo_genotype("fasterseg-student"), SIZE)
    order = schedule(of, lanes=2)
    lanes = {one.role: one.lane for one in order.launches}
    together = {"input", "stem.0", "cell.0.0", "cell.2.0", "ffm", "head", "output"}
    assert {lanes[role] for role in together} == {0}
    assert {lanes[role] for role in ("cell.3.0", "squeeze.0.16", "fuse.0.8")} == {0}
    assert {lanes[role] for role in ("cell.3.1", "cell.8.1", "squeeze.1.8", "fuse.1.8")} == {1}
    names = by_name(order)
    # What the fork reads, and what the side lane brings back.
    assert order.crossings == {names["cell.2.0.restore"].id, names["fuse.1.8.conv1"].id}
    assert names["cell.3.1.half"].waits == (names["cell.2.0.restore"].id,)
    assert names["cell.3.1.conv1"].waits == ()
    assert names["ffm.join"].waits == (names["fuse.1.8.conv1"].id,)


def test_one_lane_has_nothing_to_wait_for() -> None:
    for of in plans():
        order = schedule(of, lanes=1)
        assert not order.crossings
        assert not [one for one in order.launches if one.lane or one.waits]


def test_a_single_branch_stays_on_one_lane() -> None:
    assert {one.lane for one in schedule(skips(), lanes=2).launches} == {0}


@pytest.mark.parametrize(("zoomed", "lanes"), FORMS)
def test_private_values_are_freed_once_behind_their_last_reader(zoomed: bool, lanes: int) -> None:
    for of in plans():
        order = schedule(of, zoomed=zoomed, lanes=lanes)
        freed = Counter(value for values in order.freed for value in values)
        assert set(freed) == set(range(len(order.launches))) - order.crossings
        assert set(freed.values()) == {1}
        alive = set(range(len(order.launches)))
        for one, gone in zip(order.launches, order.freed, strict=True):
            assert alive.issuperset(one.inputs)
            assert {order.launches[value].lane for value in gone} <= {one.lane}
            alive -= set(gone)


@pytest.mark.parametrize(("channels", "held"), [(1, 8), (8, 8), (11, 16), (19, 24), (132, 136)])
def test_maps_hold_multiples_of_eight_channels(channels: int, held: int) -> None:
    assert held_channels(channels) == held
