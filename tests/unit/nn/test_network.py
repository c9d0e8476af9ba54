"""The torch network equals the original, fixture by fixture."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.plan import Plan, plan  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays, from_official  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.parity import fill, fixture_input, random_genotype, small_plan  # noqa: E402
from tests.shared import shared, zoo_genotype  # noqa: E402

pytestmark = pytest.mark.torch

NETWORKS = ("student", "teacher")
TAGS = ("1x3x128x256", "1x3x256x512", "2x3x192x320", "1x3x160x216", "1x3x96x77")


def official_state(name: str, build: str = "train_build") -> dict[str, Any]:
    """An official checkpoint's state dict, filled by the fixtures' rule."""
    keys = json.loads(shared(f"reference/official-keys-{name}.json").read_text())[build]["keys"]
    return {
        entry["key"]: torch.from_numpy(
            np.asarray(fill(entry.get("alias_of") or entry["key"], tuple(entry["shape"])))
        )
        for entry in keys
    }


@pytest.fixture(scope="module", params=NETWORKS)
def original(request: pytest.FixtureRequest) -> tuple[str, Network]:
    """The network of an official checkpoint, at a size that is none of the fixtures'."""
    name = request.param
    network_plan = plan(zoo_genotype(f"fasterseg-{name}"), Size(512, 1024), aux_heads=True)
    network = Network(network_plan).eval()
    from_arrays(network, from_official(official_state(name), network_plan))
    return name, network


@pytest.mark.parametrize("tag", TAGS)
def test_logits_equal_the_originals(original: tuple[str, Network], tag: str) -> None:
    name, network = original
    fixtures = np.load(shared(f"reference/parity/logits-{name}.npz"))
    meta = json.loads(shared("reference/parity/logits-meta.json").read_text())
    shape = tuple(int(n) for n in tag.split("x"))
    x = torch.from_numpy(fixture_input(f"input/{tag}", shape))
    with torch.inference_mode():
        logits8, full = network.logits8(x), network(x)
    assert np.abs(logits8.numpy() - fixtures[f"{tag}/logits8"]).max() <= 1e-4
    assert full.shape[-2:] == shape[-2:]
    width = shape[-1]
    theirs = fixtures[f"{tag}/argmax"][..., :width]  # up to 7 columns wider than the input
    assert np.mean(full.argmax(1).numpy() == theirs) >= 0.999
    strided = fixtures[f"{tag}/logits_strided"]
    step = full.shape[-2] // strided.shape[-2]
    ours = full.numpy()[:, :, ::step, ::step]
    columns = min(ours.shape[-1], strided.shape[-1])
    assert np.abs(ours[..., :columns] - strided[..., :columns]).max() <= 1e-4
    assert meta


def test_training_heads_equal_the_originals(original: tuple[str, Network]) -> None:
    name, network = original
    fixtures = np.load(shared(f"reference/parity/logits-{name}.npz"))
    tag = "1x3x128x256"
    x = torch.from_numpy(fixture_input(f"input/{tag}", (1, 3, 128, 256)))
    with torch.inference_mode():
        outputs = network.outputs(x, ["aux.16", "aux.32"])
    for rate in (16, 32):
        theirs = fixtures[f"aux/{tag}/heads{rate}"]
        assert np.abs(outputs[f"aux.{rate}"].numpy() - theirs).max() <= 1e-4


def tap_roles(network_plan: Plan) -> dict[str, str]:
    """Our role -> name of the fixture's tap."""
    names = {"stem.0": "stem.0", "stem.1": "stem.1", "stem.2": "stem.2", "ffm": "ffm"}
    names |= {"head": "heads8"}
    names |= {"squeeze.0.16": "arms32.0", "squeeze.0.8": "arms32.1", "squeeze.1.8": "arms16"}
    names |= {"fuse.0.16": "refines32.0", "fuse.0.8": "refines32.1", "fuse.1.8": "refines16"}
    for role in network_plan.by_role:
        if role.startswith("cell."):
            _, cell, branch = role.split(".")
            names[role] = f"cells.{cell}-{branch}"
    return names


def test_every_block_gives_the_originals_map(original: tuple[str, Network]) -> None:
    name, network = original
    taps = np.load(shared(f"reference/parity/taps-{name}.npz"))
    x = torch.from_numpy(fixture_input("input/1x3x128x256", (1, 3, 128, 256)))
    seen: dict[str, np.ndarray[Any, Any]] = {}
    with torch.inference_mode():
        network.outputs(x, ["head"], lambda node, y: seen.update({node.role: y.numpy().copy()}))
    names = tap_roles(network.plan)
    assert {names[role] for role in seen} == {k for k in taps.files if not k.endswith("#stat")}
    for role, y in seen.items():
        tap = taps[names[role]]
        if role in ("stem.0", "stem.1"):
            ours = y[:, ::8, ::4, ::4]
        elif role == "stem.2":
            ours = y[:, ::8]
        else:
            ours = y if role == "head" else y[:, ::4]
        assert ours.shape == tap.shape, role
        assert np.abs(ours - tap).max() <= 1e-4, role
        stat = taps[f"{names[role]}#stat"]
        assert abs(y.astype(np.float64).mean() - stat[0]) <= 1e-5, role
        assert abs(np.abs(y).max() - stat[2]) <= 1e-4, role


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [Size(64, 64), Size(128, 96)])
def test_random_networks_run_at_any_multiple_of_32(seed: int, size: Size) -> None:
    network = Network(plan(random_genotype(seed), size)).eval()
    with torch.inference_mode():
        y = network(torch.zeros(1, 3, *size))
    assert y.shape == (1, 19, *size)


@pytest.mark.parametrize("size", [Size(64, 64), Size(65, 71), Size(97, 203), Size(100, 64)])
@pytest.mark.parametrize("name", NETWORKS)
def test_released_networks_run_at_odd_sizes(name: str, size: Size) -> None:
    network = Network(plan(zoo_genotype(f"fasterseg-{name}"), Size(64, 64))).eval()
    with torch.inference_mode():
        y = network(torch.zeros(1, 3, *size))
    assert y.shape == (1, 19, *size)


def test_maps_have_the_planned_sizes() -> None:
    size = Size(97, 203)
    network = Network(plan(zoo_genotype("fasterseg-student"), size)).eval()
    found: dict[str, tuple[int, ...]] = {}
    with torch.inference_mode():
        network.outputs(
            torch.zeros(1, 3, *size), ["head"], lambda n, y: found.update({n.role: tuple(y.shape)})
        )
    for role, shape in found.items():
        spec = network.plan.by_role[role].spec
        assert shape[1:] == (spec.out_channels, *spec.output_size), role


def test_parameters_are_those_the_plan_counts() -> None:
    network_plan = small_plan()
    network = Network(network_plan)
    assert sum(p.numel() for p in network.parameters()) == network_plan.parameters
    stored = {k for k in network.state_dict() if not k.endswith("num_batches_tracked")}
    assert stored == set(network_plan.parameter_shapes)
